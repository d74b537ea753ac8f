//! Aggregates that do not need sorted input. Several such aggregates in one statement can therefore use different
//! orders.
//!
//! The engine sorts the input of an aggregate that has an ORDER BY. It refuses a statement with two aggregates that
//! need different orders. `string_agg` can sort its rows itself, and a percentile does not depend on the order of the
//! rows. The number of centroids of an approximate percentile is limited here, too.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};
use datafusion::physical_expr::expressions::Literal;

use crate::error::Error;
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

/// The maximum number of centroids of an approximate percentile. The engine allocates memory for them in advance.
const CENTROIDS_MAX: u64 = 10_000;

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
        fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool;
        fn supports_null_handling_clause(&self) -> bool;
        fn supports_within_group_clause(&self) -> bool;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.check_centroids(&args)?;
        self.inner.accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.check_centroids(&args)?;
        self.inner.create_sliding_accumulator(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.check_centroids(&args)?;
        self.inner.create_groups_accumulator(args)
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

impl OwnOrder {
    /// Fails if an approximate percentile has too many centroids. Its last argument is the number of centroids.
    fn check_centroids(&self, args: &AccumulatorArgs) -> Result<()> {
        let position = match self.inner.name() {
            "approx_percentile_cont" => 2,
            "approx_percentile_cont_with_weight" => 3,
            _ => return Ok(()),
        };
        let literal = args.exprs.get(position).and_then(|expr| expr.downcast_ref::<Literal>());
        let centroids = literal.and_then(|literal| literal.value().cast_to(&DataType::UInt64).ok());
        if matches!(centroids, Some(ScalarValue::UInt64(Some(centroids))) if centroids > CENTROIDS_MAX) {
            return Err(DataFusionError::External(Box::new(Error::limited(format!(
                "{} has at most {CENTROIDS_MAX} centroids: use fewer centroids, or percentile_cont",
                self.inner.name()
            )))));
        }
        Ok(())
    }
}
