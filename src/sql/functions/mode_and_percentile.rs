//! The aggregates `mode` and `percentile_disc`, which return one of the values in the group.
//!
//! Both count how often each value occurs, so the result does not depend on the order of the values. Both support
//! moving window frames.
//!
//! ```sql
//! mode() WITHIN GROUP (ORDER BY x)                 mode(x)
//! percentile_disc(0.5) WITHIN GROUP (ORDER BY x)   quantile_disc(x, 0.5)
//! ```

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Signature, Volatility};

use crate::sql::functions::distinct_values::normalized;

/// Returns `mode` and `percentile_disc`.
pub(crate) fn functions() -> [Arc<AggregateUDF>; 2] {
    let function = |name, aliases: &[&str], has_fraction| {
        Arc::new(AggregateUDF::new_from_impl(ValueAggregate {
            name,
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            has_fraction,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    };
    [function("mode", &[], false), function("percentile_disc", &["quantile_disc"], true)]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ValueAggregate {
    name: &'static str,
    aliases: Vec<String>,
    /// True if the function has a second argument, which is a fraction.
    has_fraction: bool,
    signature: Signature,
}

impl AggregateUDFImpl for ValueAggregate {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        match kinds {
            [value] if !self.has_fraction => Ok(vec![value.clone()]),
            [value, fraction] if self.has_fraction && (fraction.is_numeric() || fraction.is_null()) => {
                Ok(vec![value.clone(), DataType::Float64])
            }
            _ => {
                let form = if self.has_fraction { "percentile_disc(0.5)" } else { "mode()" };
                Err(DataFusionError::Plan(format!("write {form} WITHIN GROUP (ORDER BY x)")))
            }
        }
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds[0].clone())
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |name, kind: DataType| {
            Arc::new(Field::new_list(format_state_name(args.name, name), Field::new_list_field(kind, true), true))
        };
        Ok(vec![list("values", args.input_fields[0].data_type().clone()), list("copies", DataType::UInt64)])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Err(DataFusionError::NotImplemented(format!("DISTINCT in {} is not supported", self.name)));
        }
        let fraction = if self.has_fraction { Some(fraction(&args)?) } else { None };
        let is_descending = args.order_bys.first().is_some_and(|order| order.options.descending);
        let kind = args.expr_fields[0].data_type().clone();
        Ok(Box::new(ValueCounts { copies: HashMap::new(), kind, fraction, is_descending }))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }
}

/// Returns the value of the second argument, or an error if it is not a constant between 0 and 1.
pub(super) fn fraction(args: &AccumulatorArgs) -> Result<f64> {
    let batch = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let value = match args.exprs[1].evaluate(&batch) {
        Ok(ColumnarValue::Scalar(value)) => value.cast_to(&DataType::Float64)?,
        _ => return Err(DataFusionError::Plan("the fraction of a percentile must be a constant".to_owned())),
    };
    match value {
        ScalarValue::Float64(Some(fraction)) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        value => Err(DataFusionError::Plan(format!("the fraction {value} of a percentile is not between 0 and 1"))),
    }
}

/// The distinct values of a group, and how often each value occurs.
#[derive(Debug)]
struct ValueCounts {
    copies: HashMap<ScalarValue, u64>,
    kind: DataType,
    /// The fraction of `percentile_disc`.
    fraction: Option<f64>,
    is_descending: bool,
}

impl ValueCounts {
    /// Calls `change` for each value except NULL.
    fn each(
        &mut self,
        values: &ArrayRef,
        mut change: impl FnMut(&mut HashMap<ScalarValue, u64>, ScalarValue, usize),
    ) -> Result<()> {
        let values = normalized(values);
        for row in 0..values.len() {
            if values.is_valid(row) {
                change(&mut self.copies, ScalarValue::try_from_array(&values, row)?, row);
            }
        }
        Ok(())
    }

    /// Returns the distinct values in the order of ORDER BY, and how often each value occurs.
    fn sorted(&self) -> Vec<(&ScalarValue, u64)> {
        let mut sorted: Vec<_> = self.copies.iter().map(|(value, copies)| (value, *copies)).collect();
        sorted.sort_by(|(a, _), (b, _)| self.compare(a, b));
        sorted
    }

    /// Compares two values in the order of ORDER BY.
    fn compare(&self, a: &ScalarValue, b: &ScalarValue) -> Ordering {
        let order = a.partial_cmp(b).unwrap_or(Ordering::Equal);
        if self.is_descending { order.reverse() } else { order }
    }

    /// Returns the first value, in sort order, whose cumulative share reaches the given fraction.
    fn percentile(&self, fraction: f64) -> Option<ScalarValue> {
        let count: u64 = self.copies.values().sum();
        let position = (fraction * count as f64).ceil() as u64;
        let mut reached = 0;
        let found = self.sorted().into_iter().find(|(_, copies)| {
            reached += copies;
            reached >= position
        });
        found.map(|(value, _)| value.clone())
    }

    /// Returns the most frequent value. If several values are equally frequent, returns the first of them in sort
    /// order.
    fn mode(&self) -> Option<ScalarValue> {
        let first =
            |a: &(&ScalarValue, &u64), b: &(&ScalarValue, &u64)| a.1.cmp(b.1).then_with(|| self.compare(b.0, a.0));
        self.copies.iter().max_by(first).map(|(value, _)| value.clone())
    }
}

impl Accumulator for ValueCounts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(&values[0], |copies, value, _| *copies.entry(value).or_default() += 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(&values[0], |copies, value, _| match copies.get_mut(&value) {
            Some(1) => _ = copies.remove(&value),
            Some(count) => *count -= 1,
            None => {}
        })
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for (values, counts) in values.iter().flatten().zip(counts.iter().flatten()) {
            let counts = counts.as_primitive::<UInt64Type>();
            self.each(&values, |copies, value, row| *copies.entry(value).or_default() += counts.value(row))?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (values, counts): (Vec<_>, Vec<_>) =
            self.sorted().into_iter().map(|(value, count)| (value.clone(), ScalarValue::from(count))).unzip();
        Ok(vec![
            ScalarValue::List(ScalarValue::new_list_nullable(&values, &self.kind)),
            ScalarValue::List(ScalarValue::new_list_nullable(&counts, &DataType::UInt64)),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let found = match self.fraction {
            Some(fraction) => self.percentile(fraction),
            None => self.mode(),
        };
        found.map_or_else(|| ScalarValue::try_from(&self.kind), Ok)
    }

    fn size(&self) -> usize {
        let heap: usize = self.copies.keys().map(|value| value.size() - size_of::<ScalarValue>()).sum();
        size_of_val(self) + self.copies.capacity() * size_of::<(ScalarValue, u64)>() + heap
    }
}
