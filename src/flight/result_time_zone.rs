//! Converts timestamps to the wall-clock time in the time zone of a JDBC client.
//!
//! The Arrow Flight SQL driver for JDBC returns wrong times unless the JVM runs in UTC. The driver shifts a timestamp
//! by the offset of the driver's calendar, and then reads the result in the JVM's time zone. The two shifts cancel out
//! if the driver's calendar is in UTC and the server sends the wall-clock time of the JVM's time zone, as a timestamp
//! without a time zone. In addition, the driver can return a timestamp as an object only if the timestamp has no time
//! zone. To get correct times, a client sets two properties in the JDBC URL:
//!
//! ```text
//!   timeZone=UTC                              the driver's calendar. The driver sends it as the header `timezone`
//!   x-glasshouse-timezone=America/New_York    the JVM's time zone. The driver sends unknown properties as headers
//!
//!   result     instant ─► wall-clock time of the zone ─► driver: Timestamp.valueOf ─► instant
//!   parameter  instant ─► driver: UTC calendar ─► instant
//! ```
//!
//! The driver shifts a time of day twice in the same direction: when it applies its calendar, and when it reads the result
//! in the JVM's time zone. The server therefore subtracts the offset twice, which makes `getTime` correct. The driver's other
//! methods do not apply the calendar, so they return other times (docs/sql.md). The offset is the one of 1970-01-01, which
//! is the date of a `java.sql.Time`.
//!
//! **Invariant:** if a call does not have the header `x-glasshouse-timezone`, its values and types stay unchanged.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray as _, PrimitiveArray, RecordBatch, make_array};
use arrow::array::{ArrayData, RecordBatchOptions};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, FieldRef, Schema, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use arrow::temporal_conversions::as_datetime;
use chrono::{DateTime, Offset as _, TimeZone as _};
use tonic::metadata::MetadataMap;

use crate::error::{Error, Result};

/// The header with the client's time zone.
const HEADER: &str = "x-glasshouse-timezone";
/// The header in which the driver sends its JDBC property `timeZone`.
const CALENDAR_HEADER: &str = "timezone";
/// The only value of the JDBC property `timeZone` with which the driver returns correct times.
const CALENDAR: &str = "UTC";

/// The time zone in which a client reads timestamps.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientTimeZone(Tz);

impl PartialEq for ClientTimeZone {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl ClientTimeZone {
    /// Returns the time zone that the client requests in the headers of a call. Returns `None` if it requests none.
    pub(super) fn of(headers: &MetadataMap) -> Result<Option<Self>> {
        let Some(name) = headers.get(HEADER) else { return Ok(None) };
        let zone = Self::parse(name.to_str().unwrap_or_default())?;
        if headers.get(CALENDAR_HEADER).and_then(|calendar| calendar.to_str().ok()) != Some(CALENDAR) {
            return Err(Error::invalid(format!(
                "header `{HEADER}` requires the calendar {CALENDAR}: add `timeZone={CALENDAR}` to the JDBC URL"
            )));
        }
        Ok(Some(zone))
    }

    /// Parses a time zone, which is given by its name (`Europe/Berlin`) or as an offset (`+05:30`).
    pub(super) fn parse(name: &str) -> Result<Self> {
        let unknown = || {
            Error::invalid(format!(
                "header `{HEADER}` has an unknown time zone `{name}`: use a name such as `Europe/Berlin`, or `UTC`"
            ))
        };
        name.parse().map(Self).map_err(|_: ArrowError| unknown())
    }

    /// Returns the name of the time zone, which [`ClientTimeZone::parse`] accepts.
    pub(super) fn name(self) -> String {
        self.0.to_string()
    }

    /// Converts each timestamp with a time zone to the wall-clock time in the client's time zone, and shifts times of day.
    /// [`local_schema`] returns the schema of the result.
    pub(super) fn localize(self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = batch.columns().iter().map(|column| self.localize_column(column));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        columns
            .collect::<Result<Vec<_>, _>>()
            .and_then(|columns| {
                RecordBatch::try_new_with_options(Arc::new(local_schema(batch.schema_ref())), columns, &options)
            })
            .map_err(|error| {
                Error::limited(format!("a timestamp cannot be shown in time zone `{}`", self.name())).with_source(error)
            })
    }

    fn localize_column(self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        if let DataType::Time32(_) | DataType::Time64(_) = column.data_type() {
            return self.shift_times_of_day(column);
        }
        if local_type(column.data_type()) == *column.data_type() {
            return Ok(Arc::clone(column));
        }
        Ok(make_array(self.localize_data(column.to_data())?))
    }

    /// Shifts times of day, so that the driver returns them unchanged. The results have milliseconds, because the driver
    /// drops all further digits, and may be negative or greater than a day.
    fn shift_times_of_day(self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let offset = self.0.offset_from_utc_datetime(&DateTime::UNIX_EPOCH.naive_utc()).fix().local_minus_utc();
        let millis = |millis: i64| millis - 2 * 1_000 * i64::from(offset);
        Ok(match column.data_type() {
            DataType::Time32(TimeUnit::Second) => Arc::new(
                column.as_primitive::<Time32SecondType>().unary::<_, Time32SecondType>(|time| time - 2 * offset),
            ),
            DataType::Time32(_) => {
                let shift = |time: i32| time - 2 * 1_000 * offset;
                Arc::new(column.as_primitive::<Time32MillisecondType>().unary::<_, Time32MillisecondType>(shift))
            }
            DataType::Time64(TimeUnit::Microsecond) => {
                let shift = |time: i64| millis(time.div_euclid(1_000)) * 1_000;
                Arc::new(column.as_primitive::<Time64MicrosecondType>().unary::<_, Time64MicrosecondType>(shift))
            }
            DataType::Time64(_) => {
                let shift = |time: i64| millis(time.div_euclid(1_000_000)) * 1_000_000;
                Arc::new(column.as_primitive::<Time64NanosecondType>().unary::<_, Time64NanosecondType>(shift))
            }
            other => return Err(ArrowError::CastError(format!("{other} is not a time of day"))),
        })
    }

    /// Converts the timestamps in an array, including those in nested arrays.
    fn localize_data(self, data: ArrayData) -> Result<ArrayData, ArrowError> {
        let to = local_type(data.data_type());
        if to == *data.data_type() {
            return Ok(data);
        }
        if let DataType::Timestamp(unit, _) = data.data_type() {
            let (unit, times) = (*unit, make_array(data));
            return match unit {
                TimeUnit::Second => self.localize_times::<TimestampSecondType>(times.as_primitive(), 1),
                TimeUnit::Millisecond => self.localize_times::<TimestampMillisecondType>(times.as_primitive(), 1_000),
                TimeUnit::Microsecond => {
                    self.localize_times::<TimestampMicrosecondType>(times.as_primitive(), 1_000_000)
                }
                TimeUnit::Nanosecond => {
                    self.localize_times::<TimestampNanosecondType>(times.as_primitive(), 1_000_000_000)
                }
            };
        }
        let children = data.child_data().iter().map(|child| self.localize_data(child.clone()));
        let children = children.collect::<Result<Vec<_>, _>>()?;
        data.into_builder().data_type(to).child_data(children).build()
    }

    fn localize_times<T: ArrowTimestampType>(
        self,
        times: &PrimitiveArray<T>,
        units_per_second: i64,
    ) -> Result<ArrayData, ArrowError> {
        let local = |time: i64| {
            let utc = as_datetime::<T>(time)?;
            let offset = i64::from(self.0.offset_from_utc_datetime(&utc).fix().local_minus_utc());
            time.checked_add(offset.checked_mul(units_per_second)?)
        };
        let local = times.try_unary::<_, T, _>(|time| {
            local(time).ok_or_else(|| ArrowError::ArithmeticOverflow(format!("{time} has no local time")))
        })?;
        Ok(local.into_data())
    }
}

/// Returns the schema in which no timestamp type has a time zone.
pub(super) fn local_schema(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(local_field).collect::<Vec<_>>())
}

fn local_field(field: &FieldRef) -> FieldRef {
    let data_type = local_type(field.data_type());
    if data_type == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(Field::clone(field).with_data_type(data_type))
}

fn local_type(data_type: &DataType) -> DataType {
    use DataType as T;
    match data_type {
        T::Timestamp(unit, Some(_)) => T::Timestamp(*unit, None),
        T::List(item) => T::List(local_field(item)),
        T::LargeList(item) => T::LargeList(local_field(item)),
        T::ListView(item) => T::ListView(local_field(item)),
        T::LargeListView(item) => T::LargeListView(local_field(item)),
        T::FixedSizeList(item, length) => T::FixedSizeList(local_field(item), *length),
        T::Struct(fields) => T::Struct(fields.iter().map(local_field).collect()),
        T::Map(entries, sorted) => T::Map(local_field(entries), *sorted),
        T::Dictionary(keys, values) => T::Dictionary(keys.clone(), Box::new(local_type(values))),
        T::RunEndEncoded(ends, values) => T::RunEndEncoded(Arc::clone(ends), local_field(values)),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Int64Array, ListBuilder, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
        TimestampMicrosecondBuilder,
    };
    use arrow::datatypes::Int64Type;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn micros(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn utc(times: &[Option<&str>]) -> TimestampMicrosecondArray {
        times.iter().map(|time| time.map(micros)).collect::<TimestampMicrosecondArray>().with_timezone("UTC")
    }

    #[test]
    fn timestamps_become_wall_clock_times_of_the_zone() {
        let times = utc(&[
            Some("2024-07-01T00:30:00.000001Z"),
            None,
            Some("2024-01-01T00:30:00Z"),
            Some("1910-01-01T00:00:00Z"),
            Some("9999-12-31T00:00:00Z"),
            // On this day, daylight saving time ends in New York, so the clock shows 01:30 at both of these instants.
            Some("2024-11-03T05:30:00Z"),
            Some("2024-11-03T06:30:00Z"),
        ]);
        let batch = RecordBatch::try_from_iter([("t", Arc::new(times) as ArrayRef)]).unwrap();
        for (zone, expected) in [
            (
                "America/New_York",
                [
                    Some("2024-06-30T20:30:00.000001Z"),
                    None,
                    Some("2023-12-31T19:30:00Z"),
                    Some("1909-12-31T19:00:00Z"),
                    Some("9999-12-30T19:00:00Z"),
                    Some("2024-11-03T01:30:00Z"),
                    Some("2024-11-03T01:30:00Z"),
                ],
            ),
            (
                "+05:30",
                [
                    Some("2024-07-01T06:00:00.000001Z"),
                    None,
                    Some("2024-01-01T06:00:00Z"),
                    Some("1910-01-01T05:30:00Z"),
                    Some("9999-12-31T05:30:00Z"),
                    Some("2024-11-03T11:00:00Z"),
                    Some("2024-11-03T12:00:00Z"),
                ],
            ),
        ] {
            let zone = ClientTimeZone::parse(zone).unwrap();
            assert_eq!(ClientTimeZone::parse(&zone.name()).unwrap(), zone);
            let local = zone.localize(&batch).unwrap();
            assert_eq!(*local.schema(), local_schema(batch.schema_ref()));
            let expected: TimestampMicrosecondArray = expected.iter().map(|time| time.map(micros)).collect();
            assert_eq!(local.column(0).as_primitive::<TimestampMicrosecondType>(), &expected, "{}", zone.name());
        }
    }

    #[test]
    fn times_of_day_are_shifted_against_both_shifts_of_the_driver() {
        let noon = 43_200 * SECOND;
        let micros: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![Some(noon + 1_999), None]));
        let kinds = [
            (DataType::Time32(TimeUnit::Second), 1),
            (DataType::Time32(TimeUnit::Millisecond), 1_000),
            (DataType::Time64(TimeUnit::Microsecond), 1_000_000),
            (DataType::Time64(TimeUnit::Nanosecond), 1_000_000_000),
        ];
        // The offset of Apia in 1970 was -11:00, and it is +13:00 today.
        for (zone, hours) in [("America/St_Johns", 7), ("Pacific/Apia", 22), ("+05:30", -11), ("UTC", 0)] {
            for (kind, per_second) in &kinds {
                let times = arrow::compute::cast(&micros, kind).unwrap();
                let batch = RecordBatch::try_from_iter([("t", times)]).unwrap();
                let local = ClientTimeZone::parse(zone).unwrap().localize(&batch).unwrap();
                assert_eq!(local.schema(), batch.schema());
                let values = arrow::compute::cast(
                    local.column(0),
                    if *per_second > 1_000 { &DataType::Int64 } else { &DataType::Int32 },
                );
                let values = arrow::compute::cast(&values.unwrap(), &DataType::Int64).unwrap();
                let millis = if *per_second == 1 { 0 } else { per_second / 1_000 };
                let expected = [Some((43_200 + hours * 3_600) * per_second + millis), None];
                assert_eq!(
                    values.as_primitive::<Int64Type>(),
                    &expected.into_iter().collect::<Int64Array>(),
                    "{zone} {kind}"
                );
            }
        }
    }

    #[test]
    fn nested_timestamps_are_localized_and_others_are_kept() {
        let naive = TimestampMicrosecondArray::from(vec![SECOND]);
        let mut list = ListBuilder::new(TimestampMicrosecondBuilder::new().with_timezone("UTC"));
        list.append_value([Some(SECOND), None]);
        let struct_of = |column: ArrayRef| {
            Arc::new(StructArray::from(vec![(Arc::new(Field::new("x", column.data_type().clone(), true)), column)]))
                as ArrayRef
        };
        let zoned = struct_of(Arc::new(list.finish()));
        let batch = RecordBatch::try_from_iter([("n", Arc::new(naive) as ArrayRef), ("s", zoned)]).unwrap();
        let local = ClientTimeZone::parse("+00:01").unwrap().localize(&batch).unwrap();
        assert_eq!(local.column(0), batch.column(0));
        let list = local.column(1).as_struct().column(0).as_list::<i32>().value(0);
        let expected = TimestampMicrosecondArray::from(vec![Some(61 * SECOND), None]);
        assert_eq!(list.as_primitive::<TimestampMicrosecondType>(), &expected);
    }

    #[test]
    fn the_time_zone_needs_a_utc_calendar() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let mut map = MetadataMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            ClientTimeZone::of(&map).map(|zone| zone.map(ClientTimeZone::name)).map_err(|error| error.to_string())
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("timezone", "Asia/Kolkata")]), Ok(None));
        let both = [(HEADER, "Asia/Kolkata"), (CALENDAR_HEADER, "UTC")];
        assert_eq!(of(&both), Ok(Some("Asia/Kolkata".to_owned())));
        assert!(of(&[(HEADER, "Asia/Kolkata")]).unwrap_err().contains("add `timeZone=UTC` to the JDBC URL"));
        assert!(of(&[(HEADER, "Asia/Kolkata"), (CALENDAR_HEADER, "Asia/Kolkata")]).is_err());
        assert!(of(&[(HEADER, "Mars/Phobos"), (CALENDAR_HEADER, "UTC")]).unwrap_err().contains("`Mars/Phobos`"));
    }
}
