//! The accumulators of `sum`, `avg`, variance and standard deviation. They share one generic implementation over a
//! running total.
//!
//! ```text
//!   without GROUP BY, and in windows ─► TotalAccumulator    one total; values can leave a moving window
//!   with GROUP BY                    ─► GroupTotals         one total per group
//! ```
//!
//! **Invariant:** a total is exact, and only [`Finish`] rounds it or checks its range. A result therefore does not
//! depend on the order of the rows or the number of partitions, and rounding errors do not accumulate while a window
//! frame moves.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, BooleanArray, PrimitiveArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};

/// The exact running total of a group's values.
pub(super) trait Total: fmt::Debug + Default + Send + Sync + 'static {
    /// The type of the values that are added.
    type Input: ArrowPrimitiveType;

    /// The names and types of the columns that hold a partial total.
    const STATE: &'static [(&'static str, DataType)];

    /// Adds a value. Returns the number of bytes by which the total grew on the heap.
    fn add(&mut self, value: <Self::Input as ArrowPrimitiveType>::Native) -> usize;

    /// Adds several values.
    fn add_all(&mut self, values: &[<Self::Input as ArrowPrimitiveType>::Native]) {
        for value in values {
            self.add(*value);
        }
    }

    /// Removes a value that was added.
    fn remove(&mut self, value: <Self::Input as ArrowPrimitiveType>::Native);

    /// Returns the number of values.
    fn count(&self) -> u64;

    /// Returns the number of bytes that the total uses on the heap.
    fn heap(&self) -> usize;

    /// Returns the columns of [`Total::STATE`], with a row for each total.
    fn states(totals: &[Self]) -> Result<Vec<ArrayRef>>;

    /// Adds the partial total in one row of `states`. Returns the number of bytes by which the total grew on the heap.
    fn merge(&mut self, states: &[ArrayRef], row: usize) -> Result<usize>;

    /// Converts each value directly to the columns of a partial total. Returns `None` if the type has no such shortcut
    /// and the caller must create a total for each value.
    fn states_of_values(_values: &PrimitiveArray<Self::Input>) -> Option<Vec<ArrayRef>> {
        None
    }
}

/// A function that computes results from totals: it divides, rounds, and checks the range.
pub(super) type Finish<T> = Arc<dyn Fn(&[T]) -> Result<ArrayRef> + Send + Sync>;

/// Returns the state fields for the aggregate `name`.
pub(super) fn state_fields<T: Total>(name: &str) -> Vec<FieldRef> {
    let field = |(state, kind): &(&str, DataType)| Field::new(format_state_name(name, state), kind.clone(), true);
    T::STATE.iter().map(|state| Arc::new(field(state))).collect()
}

/// The accumulator for a single total.
pub(super) struct TotalAccumulator<T> {
    total: T,
    finish: Finish<T>,
}

impl<T: Total> TotalAccumulator<T> {
    pub(super) fn boxed(finish: Finish<T>) -> Box<dyn Accumulator> {
        Box::new(Self { total: T::default(), finish })
    }
}

impl<T: Total> fmt::Debug for TotalAccumulator<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TotalAccumulator").field("total", &self.total).finish_non_exhaustive()
    }
}

impl<T: Total> Accumulator for TotalAccumulator<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let values = values[0].as_primitive::<T::Input>();
        if values.null_count() == 0 {
            self.total.add_all(values.values());
        } else {
            values.iter().flatten().for_each(|value| _ = self.total.add(value));
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values[0].as_primitive::<T::Input>().iter().flatten().for_each(|value| self.total.remove(value));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&(self.finish)(std::slice::from_ref(&self.total))?, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let states = T::states(std::slice::from_ref(&self.total))?;
        states.iter().map(|state| ScalarValue::try_from_array(state, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        (0..states[0].len()).try_for_each(|row| self.total.merge(states, row).map(drop))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.total.heap()
    }
}

/// The totals of all groups.
pub(super) struct GroupTotals<T> {
    totals: Vec<T>,
    /// The number of bytes that all totals use on the heap.
    heap: usize,
    finish: Finish<T>,
}

impl<T: Total> GroupTotals<T> {
    pub(super) fn boxed(finish: Finish<T>) -> Box<dyn GroupsAccumulator> {
        Box::new(Self { totals: Vec::new(), heap: 0, finish })
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<T> {
        let taken = emit_to.take_needed(&mut self.totals);
        self.heap = self.totals.iter().map(Total::heap).sum();
        taken
    }
}

impl<T: Total> GroupsAccumulator for GroupTotals<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let values = values[0].as_primitive::<T::Input>();
        self.totals.resize_with(total_num_groups, T::default);
        let mut heap = 0;
        if values.null_count() == 0 && opt_filter.is_none() {
            for (value, group) in values.values().iter().zip(group_indices) {
                heap += self.totals[*group].add(*value);
            }
        } else {
            for (row, group) in group_indices.iter().enumerate() {
                if values.is_valid(row) && is_kept(opt_filter, row) {
                    heap += self.totals[*group].add(values.value(row));
                }
            }
        }
        self.heap += heap;
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let totals = self.take(emit_to);
        (self.finish)(&totals)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        T::states(&self.take(emit_to))
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.totals.resize_with(total_num_groups, T::default);
        for (row, group) in group_indices.iter().enumerate() {
            self.heap += self.totals[*group].merge(values, row)?;
        }
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<T::Input>();
        if let (None, Some(states)) = (opt_filter, T::states_of_values(values)) {
            return Ok(states);
        }
        let totals = (0..values.len()).map(|row| {
            let mut total = T::default();
            if values.is_valid(row) && is_kept(opt_filter, row) {
                total.add(values.value(row));
            }
            total
        });
        T::states(&totals.collect::<Vec<_>>())
    }

    fn size(&self) -> usize {
        self.totals.capacity() * size_of::<T>() + self.heap
    }
}

fn is_kept(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}
