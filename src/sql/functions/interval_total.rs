//! Computes the exact sum of intervals. Months, days and fractions of a day are added separately.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, Decimal128Array, UInt64Array};
use arrow::datatypes::{
    DataType, Decimal128Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalYearMonthType, UInt64Type,
};
use datafusion::error::Result;

use crate::sql::functions::running_total::Total;

/// An interval type whose values can be split into integers that are summed separately.
pub(super) trait Parts: ArrowPrimitiveType + std::fmt::Debug {
    /// Splits a value into months, days and a fraction of a day. A field that the type does not have is zero.
    fn parts(value: Self::Native) -> [i128; 3];

    /// Returns the value with the given months, days and fraction of a day, or `None` if a field is out of range.
    fn value(parts: [i128; 3]) -> Option<Self::Native>;
}

impl Parts for IntervalYearMonthType {
    fn parts(value: i32) -> [i128; 3] {
        [value.into(), 0, 0]
    }

    fn value([months, ..]: [i128; 3]) -> Option<i32> {
        months.try_into().ok()
    }
}

impl Parts for IntervalDayTimeType {
    fn parts(value: Self::Native) -> [i128; 3] {
        [0, value.days.into(), value.milliseconds.into()]
    }

    fn value([_, days, milliseconds]: [i128; 3]) -> Option<Self::Native> {
        Some(Self::make_value(days.try_into().ok()?, milliseconds.try_into().ok()?))
    }
}

impl Parts for IntervalMonthDayNanoType {
    fn parts(value: Self::Native) -> [i128; 3] {
        [value.months.into(), value.days.into(), value.nanoseconds.into()]
    }

    fn value([months, days, nanoseconds]: [i128; 3]) -> Option<Self::Native> {
        Some(Self::make_value(months.try_into().ok()?, days.try_into().ok()?, nanoseconds.try_into().ok()?))
    }
}

/// The running sum of intervals, and the number of intervals in it.
#[derive(Debug)]
pub(super) struct IntervalTotal<T> {
    parts: [i128; 3],
    count: u64,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T> Default for IntervalTotal<T> {
    fn default() -> Self {
        Self { parts: [0; 3], count: 0, kind: std::marker::PhantomData }
    }
}

impl<T: Parts> IntervalTotal<T> {
    pub(super) fn sum(&self) -> Option<T::Native> {
        T::value(self.parts)
    }
}

impl<T: Parts> Total for IntervalTotal<T> {
    type Input = T;

    const STATE: &'static [(&'static str, DataType)] = &[
        ("count", DataType::UInt64),
        ("months", DataType::Decimal128(38, 0)),
        ("days", DataType::Decimal128(38, 0)),
        ("fractions", DataType::Decimal128(38, 0)),
    ];

    fn add(&mut self, value: T::Native) -> usize {
        self.count += 1;
        self.parts.iter_mut().zip(T::parts(value)).for_each(|(sum, part)| *sum += part);
        0
    }

    fn remove(&mut self, value: T::Native) {
        self.count -= 1;
        self.parts.iter_mut().zip(T::parts(value)).for_each(|(sum, part)| *sum -= part);
    }

    fn count(&self) -> u64 {
        self.count
    }

    fn heap(&self) -> usize {
        0
    }

    fn states(totals: &[Self]) -> Result<Vec<ArrayRef>> {
        let counts = UInt64Array::from_iter_values(totals.iter().map(|total| total.count));
        let mut states: Vec<ArrayRef> = vec![Arc::new(counts)];
        for part in 0..3 {
            let sums = Decimal128Array::from_iter_values(totals.iter().map(|total| total.parts[part]));
            states.push(Arc::new(sums.with_precision_and_scale(38, 0)?));
        }
        Ok(states)
    }

    fn merge(&mut self, states: &[ArrayRef], row: usize) -> Result<usize> {
        let counts = states[0].as_primitive::<UInt64Type>();
        if counts.is_valid(row) {
            self.count += counts.value(row);
            for (sum, part) in self.parts.iter_mut().zip(&states[1..]) {
                *sum += part.as_primitive::<Decimal128Type>().value(row);
            }
        }
        Ok(0)
    }
}
