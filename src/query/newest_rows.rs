//! The newest times among the rows that a caller sees in a table.
//!
//! In: a session. Out: the greatest event time, and the greatest receive time of recent events. Asked as a statement of the
//! caller's own, so that slots, limits, row rules and hidden columns hold as for any other.

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use futures::TryStreamExt as _;

use crate::clock::{DAY, Micros};
use crate::contract::RECEIVED_TIME;
use crate::error::{Error, Result};
use crate::query::Session;

/// Rows of this age are looked at first; all of them only when there is none of that age.
const RECENT: Micros = 2 * DAY;

/// The newest times of a caller's rows; none where it sees no row, or not the column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Newest {
    /// The greatest event time.
    pub event: Option<Micros>,
    /// The greatest receive time among events of the last two days; of all events, if there are none of those.
    pub received: Option<Micros>,
}

impl Session {
    /// The newest times of a table's rows. Waits for a slot of the tenant, and is bounded like any question.
    pub async fn newest(&self, table: &str) -> Result<Newest> {
        let tables = self.tables();
        let shown = tables.iter().find(|shown| shown.name == table);
        let shown = shown.ok_or_else(|| Error::not_found(format!("no table `{table}`")))?;
        let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let time = self.time_column(table).filter(|time| shown.schema.field_with_name(time).is_ok());
        let received = Some(RECEIVED_TIME).filter(|name| shown.schema.field_with_name(name).is_ok());
        let max = |column: Option<&str>| match column {
            Some(column) => format!("max({})", quoted(column)),
            None => format!("arrow_cast(NULL, '{micros}')"),
        };
        let sql = format!("SELECT {}, {} FROM {}", max(time.as_deref()), max(received), quoted(table));
        if let Some(time) = &time {
            let since = chrono::DateTime::from_timestamp_micros(self.now() - RECENT).unwrap_or_default();
            let recent = format!("{sql} WHERE {} >= '{}'", quoted(time), since.to_rfc3339());
            let newest = self.newest_of(&recent).await?;
            if newest.event.is_some() {
                return Ok(newest);
            }
        }
        self.newest_of(&sql).await
    }

    async fn newest_of(&self, sql: &str) -> Result<Newest> {
        let planned = self.plan(sql).await?;
        let batches: Vec<_> = self.run(&planned, None).await?.batches.try_collect().await?;
        let Some(batch) = batches.iter().find(|batch| batch.num_rows() == 1) else { return Ok(Newest::default()) };
        let value = |column: usize| {
            let times = batch.column(column).as_primitive_opt::<TimestampMicrosecondType>()?;
            times.is_valid(0).then(|| times.value(0))
        };
        Ok(Newest { event: value(0), received: value(1) })
    }
}

/// A declared name in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
