//! Recomputes an aggregate over the whole moving frame for each row. This is needed for functions that cannot subtract
//! the rows that leave the frame.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

/// Stores the rows of the current frame.
#[derive(Debug)]
pub(super) struct RecomputedWindow {
    function: Arc<AggregateUDF>,
    call: Call,
    /// The arguments of the call for the rows of the frame, in the order of the rows.
    batches: VecDeque<Vec<ArrayRef>>,
}

/// Owned [`AccumulatorArgs`].
#[derive(Debug)]
struct Call {
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl RecomputedWindow {
    pub(super) fn boxed(function: &Arc<AggregateUDF>, args: AccumulatorArgs) -> Box<dyn Accumulator> {
        let call = Call {
            return_field: args.return_field,
            schema: args.schema.clone(),
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys.to_vec(),
            is_reversed: args.is_reversed,
            name: args.name.to_owned(),
            is_distinct: args.is_distinct,
            exprs: args.exprs.to_vec(),
            expr_fields: args.expr_fields.to_vec(),
        };
        Box::new(Self { function: Arc::clone(function), call, batches: VecDeque::new() })
    }

    /// Merges the batches into one. Frames usually move by one row at a time, so most batches are small.
    fn merge(&mut self) -> Result<()> {
        let Some(first) = self.batches.front().filter(|_| self.batches.len() > 1) else { return Ok(()) };
        let mut merged = Vec::with_capacity(first.len());
        for index in 0..first.len() {
            let arrays: Vec<_> = self.batches.iter().filter_map(|batch| batch.get(index)).map(AsRef::as_ref).collect();
            merged.push(concat(&arrays)?);
        }
        self.batches = VecDeque::from([merged]);
        Ok(())
    }
}

impl Accumulator for RecomputedWindow {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.batches.push_back(values.to_vec());
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.merge()?;
        let call = &self.call;
        let mut accumulator = self.function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&call.return_field),
            schema: &call.schema,
            ignore_nulls: call.ignore_nulls,
            order_bys: &call.order_bys,
            is_reversed: call.is_reversed,
            name: &call.name,
            is_distinct: call.is_distinct,
            exprs: &call.exprs,
            expr_fields: &call.expr_fields,
        })?;
        for batch in &self.batches {
            accumulator.update_batch(batch)?;
        }
        accumulator.evaluate()
    }

    fn size(&self) -> usize {
        let arrays = self.batches.iter().flatten();
        size_of_val(self) + arrays.map(|array| array.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(no_state())
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        Err(no_state())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut removed = values.first().map_or(0, |values| values.len());
        while removed > 0 {
            let Some(batch) = self.batches.pop_front() else { return Ok(()) };
            let rows = batch.first().map_or(0, |array| array.len());
            if rows > removed {
                let rest = batch.iter().map(|array| array.slice(removed, rows - removed)).collect();
                self.batches.push_front(rest);
                return Ok(());
            }
            removed -= rows;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }
}

fn no_state() -> DataFusionError {
    DataFusionError::Internal("a window function has no intermediate state".to_owned())
}
