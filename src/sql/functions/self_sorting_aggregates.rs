//! Aggregates that do not need sorted input. Several such aggregates in one statement can therefore use different
//! orders.
//!
//! The engine sorts the input of an aggregate that has an ORDER BY. It refuses a statement with two aggregates that
//! need different orders. `string_agg` can sort its rows itself, and a percentile does not depend on the order of the
//! rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};

use crate::sql::functions::delegate::delegate;

/// Wraps the functions that do not need sorted input, and returns the others unchanged.
pub(crate) fn with_own_order(functions: Vec<Arc<AggregateUDF>>) -> Vec<Arc<AggregateUDF>> {
    let wrapped = functions.into_iter().map(|inner| {
        let uses_order = match inner.name() {
            "string_agg" => true,
            "approx_percentile_cont" | "approx_percentile_cont_with_weight" => false,
            _ => return inner,
        };
        Arc::new(AggregateUDF::new_from_impl(OwnOrder { inner, uses_order }))
    });
    wrapped.collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OwnOrder {
    inner: Arc<AggregateUDF>,
    /// True if the function sorts the rows itself, and therefore needs the values of the ORDER BY expressions.
    uses_order: bool,
}

impl AggregateUDFImpl for OwnOrder {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef>;
        fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>>;
        fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>>;
        fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>>;
        fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>>;
        fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool;
        fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>>;
        fn supports_null_handling_clause(&self) -> bool;
        fn supports_within_group_clause(&self) -> bool;
        fn documentation(&self) -> Option<&Documentation>;
    }

    /// Returns the function unchanged, because the result does not depend on the order of the input.
    fn with_beneficial_ordering(self: Arc<Self>, _: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::NotSupported
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        if self.uses_order {
            AggregateOrderSensitivity::SoftRequirement
        } else {
            AggregateOrderSensitivity::Insensitive
        }
    }
}
