//! The aggregates `sum`, `avg`, `var` and `stddev`, computed exactly. Their results do not depend on the order of the
//! rows.
//!
//! In the engine's own functions, integers wrap around, sums of doubles depend on the order of the partitions, and
//! rounding errors accumulate in moving windows. The functions in this file replace them, under the same names and with
//! the same types.
//!
//! ```text
//!   function ─► Kind ─► a Total for the type of the argument ─► a Finish that rounds and checks the range
//! ```
//!
//! Like a quotient of decimals, an average of decimals has at least 16 digits after the decimal point if they fit.

use std::sync::Arc;

use arrow::array::{ArrowPrimitiveType, Decimal128Array, Float64Array, PrimitiveArray};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal32Type, Decimal64Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, FieldRef, Int64Type, IntervalDayTimeType,
    IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, TimeUnit, UInt64Type, i256,
};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, Signature,
};

use crate::sql::functions::checked_arithmetic::QUOTIENT_SCALE;
use crate::sql::functions::delegate::delegate;
use crate::sql::functions::distinct_values::DistinctValues;
use crate::sql::functions::double_sum::DoubleSum;
use crate::sql::functions::interval_total::{IntervalTotal, Parts};
use crate::sql::functions::running_total::{Finish, GroupTotals, Total, TotalAccumulator, state_fields};
use crate::sql::functions::variance_total::VarianceTotal;
use crate::sql::functions::wide_sum::WideSum;

/// The maximum precision of 256-bit decimals for which the engine's sum cannot wrap around.
const HUGE_DECIMAL_DIGITS_MAX: u8 = 66;

/// Replaces the functions that this file implements, and returns the others unchanged.
pub(crate) fn with_exact(functions: Vec<Arc<AggregateUDF>>) -> Vec<Arc<AggregateUDF>> {
    let sum = functions.iter().find(|function| function.name() == "sum").cloned();
    let replaced = functions.into_iter().map(|function| {
        let kind = match function.name() {
            "sum" => Kind::Sum,
            "avg" => Kind::Average,
            "var" => Kind::Variance { is_sample: true, is_root: false },
            "var_pop" => Kind::Variance { is_sample: false, is_root: false },
            "stddev" => Kind::Variance { is_sample: true, is_root: true },
            "stddev_pop" => Kind::Variance { is_sample: false, is_root: true },
            _ => return function,
        };
        let integers = match kind {
            // Compute the average from the integers themselves, because a cast to doubles would round them.
            Kind::Average => sum.as_ref().map(|sum| sum.signature().clone()),
            _ => None,
        };
        let signature = integers.unwrap_or_else(|| function.signature().clone());
        Arc::new(AggregateUDF::new_from_impl(ExactAggregate { inner: function, kind, signature }))
    });
    replaced.collect()
}

/// A kind of aggregate. `exact_lists.rs` computes the first two for the elements of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Sum,
    Average,
    Variance { is_sample: bool, is_root: bool },
}

/// An exact aggregate function. It has the name, types and documentation of the engine's function `inner`, which it
/// replaces.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactAggregate {
    inner: Arc<AggregateUDF>,
    kind: Kind,
    signature: Signature,
}

/// A function that is generic over the type of the total. [`with_total`] chooses the type and calls the function.
pub(super) trait Build {
    type Output;

    fn build<T: Total>(self, finish: Finish<T>) -> Self::Output;
}

struct BuildAccumulator;

impl Build for BuildAccumulator {
    type Output = Box<dyn Accumulator>;

    fn build<T: Total>(self, finish: Finish<T>) -> Self::Output {
        TotalAccumulator::boxed(finish)
    }
}

struct BuildGroups;

impl Build for BuildGroups {
    type Output = Box<dyn GroupsAccumulator>;

    fn build<T: Total>(self, finish: Finish<T>) -> Self::Output {
        GroupTotals::boxed(finish)
    }
}

struct BuildFields<'a>(&'a str);

impl Build for BuildFields<'_> {
    type Output = Vec<FieldRef>;

    fn build<T: Total>(self, _: Finish<T>) -> Self::Output {
        state_fields::<T>(self.0)
    }
}

impl Kind {
    /// Selects the type of the total for arguments of the type `input`, and calls `build` with it. Returns `None` if
    /// the engine's function is not replaced for this type. `name` is the text of the expression, for error messages.
    pub(super) fn with_total<B: Build>(
        self,
        input: &DataType,
        output: &DataType,
        name: &str,
        build: B,
    ) -> Option<B::Output> {
        match self {
            Self::Variance { is_sample, is_root } => {
                Some(build.build::<VarianceTotal>(Arc::new(move |totals: &[_]| {
                    Ok(VarianceTotal::results(totals, is_sample, is_root))
                })))
            }
            Self::Average => with_average(input, output, name, build),
            Self::Sum => with_sum(input, output, name, build),
        }
    }
}

fn with_average<B: Build>(input: &DataType, output: &DataType, name: &str, build: B) -> Option<B::Output> {
    let (name, output) = (name.to_owned(), output.clone());
    Some(match input {
        DataType::Float64 => build.build::<DoubleSum>(Arc::new(|totals: &[DoubleSum]| {
            Ok(Arc::new(
                totals.iter().map(|total| (total.count() > 0).then(|| total.average())).collect::<Float64Array>(),
            ))
        })),
        DataType::Int64 => build.build(average_of_integers::<Int64Type>()),
        DataType::UInt64 => build.build(average_of_integers::<UInt64Type>()),
        DataType::Decimal32(_, scale) => build.build(average_of_decimals::<Decimal32Type>(*scale, output, name)),
        DataType::Decimal64(_, scale) => build.build(average_of_decimals::<Decimal64Type>(*scale, output, name)),
        DataType::Decimal128(_, scale) => build.build(average_of_decimals::<Decimal128Type>(*scale, output, name)),
        DataType::Duration(TimeUnit::Second) => build.build(average_of_durations::<DurationSecondType>(output)),
        DataType::Duration(TimeUnit::Millisecond) => {
            build.build(average_of_durations::<DurationMillisecondType>(output))
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            build.build(average_of_durations::<DurationMicrosecondType>(output))
        }
        DataType::Duration(TimeUnit::Nanosecond) => build.build(average_of_durations::<DurationNanosecondType>(output)),
        _ => return None,
    })
}

fn with_sum<B: Build>(input: &DataType, output: &DataType, name: &str, build: B) -> Option<B::Output> {
    let (name, output) = (name.to_owned(), output.clone());
    Some(match input {
        DataType::Float64 => build.build::<DoubleSum>(Arc::new(|totals: &[DoubleSum]| {
            Ok(Arc::new(totals.iter().map(|total| (total.count() > 0).then(|| total.sum())).collect::<Float64Array>()))
        })),
        DataType::Int64 => build.build(sum_of_integers::<Int64Type>(output, name)),
        DataType::UInt64 => build.build(sum_of_integers::<UInt64Type>(output, name)),
        DataType::Decimal32(..) => build.build(sum_of_integers::<Decimal32Type>(output, name)),
        DataType::Decimal64(..) => build.build(sum_of_integers::<Decimal64Type>(output, name)),
        DataType::Decimal128(..) => build.build(sum_of_integers::<Decimal128Type>(output, name)),
        DataType::Duration(TimeUnit::Second) => build.build(sum_of_integers::<DurationSecondType>(output, name)),
        DataType::Duration(TimeUnit::Millisecond) => {
            build.build(sum_of_integers::<DurationMillisecondType>(output, name))
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            build.build(sum_of_integers::<DurationMicrosecondType>(output, name))
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            build.build(sum_of_integers::<DurationNanosecondType>(output, name))
        }
        DataType::Interval(IntervalUnit::YearMonth) => build.build(sum_of_intervals::<IntervalYearMonthType>(name)),
        DataType::Interval(IntervalUnit::DayTime) => build.build(sum_of_intervals::<IntervalDayTimeType>(name)),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            build.build(sum_of_intervals::<IntervalMonthDayNanoType>(name))
        }
        _ => return None,
    })
}

fn average_of_integers<T>() -> Finish<WideSum<T>>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    // A sum of 64-bit integers always fits into 128 bits.
    let average = |total: &WideSum<T>| match total.count() {
        0 => None,
        count => total.sum().map(|sum| sum as f64 / count as f64),
    };
    Arc::new(move |totals| Ok(Arc::new(totals.iter().map(average).collect::<Float64Array>())))
}

/// Returns the type of the average of decimals. An average is never greater than the greatest value, so it needs no
/// more digits before the point.
pub(super) fn average_type(precision: u8, scale: i8) -> DataType {
    let digits_before = i16::from(precision) - i16::from(scale);
    let left = i16::from(DECIMAL128_MAX_PRECISION) - digits_before;
    let wanted = i16::from(scale.max(QUOTIENT_SCALE));
    let result = left.min(wanted).max(i16::from(scale));
    DataType::Decimal128(DECIMAL128_MAX_PRECISION, i8::try_from(result).unwrap_or(scale))
}

/// Returns the type of the sum of decimals, which has ten more digits before the point if they fit.
pub(super) fn sum_of_decimals_type(precision: u8, scale: i8) -> DataType {
    DataType::Decimal128(precision.saturating_add(10).min(DECIMAL128_MAX_PRECISION), scale)
}

fn average_of_decimals<T>(scale: i8, output: DataType, name: String) -> Finish<WideSum<T>>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    let more = match output {
        DataType::Decimal128(_, output) => output.abs_diff(scale),
        _ => 0,
    };
    let factor = i256::from_i128(10_i128.pow(more.into()));
    // Each factor fits into 128 bits, so the product fits into 256 bits.
    let average = move |total: &WideSum<T>| {
        let (sum, count) = (total.sum()?, i256::from_i128(total.count().into()));
        let scaled = i256::from_i128(sum).checked_mul(factor)?;
        let (quotient, rest) = (scaled.checked_div(count)?, scaled.checked_rem(count)?);
        let is_half = rest.wrapping_abs().checked_mul(i256::from_i128(2))? >= count;
        let rounding = if is_half { scaled.signum() } else { i256::ZERO };
        quotient.checked_add(rounding)?.to_i128().filter(|average| average.unsigned_abs() < 10_u128.pow(38))
    };
    Arc::new(move |totals| {
        let averages = totals.iter().map(|total| match total.count() {
            0 => Ok(None),
            _ => average(total).map(Some).ok_or_else(|| out_of_range(&name, &output)),
        });
        let averages: Decimal128Array = averages.collect::<Result<_>>()?;
        Ok(Arc::new(averages.with_data_type(output.clone())))
    })
}

fn average_of_durations<T>(output: DataType) -> Finish<WideSum<T>>
where
    T: ArrowPrimitiveType<Native = i64>,
{
    let average = |total: &WideSum<T>| match total.count() {
        0 => None,
        count => total.sum().and_then(|sum| i64::try_from(sum / i128::from(count)).ok()),
    };
    Arc::new(move |totals| {
        let averages: PrimitiveArray<T> = totals.iter().map(average).collect();
        Ok(Arc::new(averages.with_data_type(output.clone())))
    })
}

fn sum_of_integers<T>(output: DataType, name: String) -> Finish<WideSum<T>>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128> + TryFrom<i128>,
{
    let end = match output {
        DataType::Decimal32(precision, _) | DataType::Decimal64(precision, _) | DataType::Decimal128(precision, _) => {
            10_i128.pow(precision.into())
        }
        _ => i128::MAX,
    };
    Arc::new(move |totals| {
        let sums = totals.iter().map(|total| {
            if total.count() == 0 {
                return Ok(None);
            }
            let sum = total.sum().filter(|sum| -end < *sum && *sum < end);
            sum.and_then(|sum| T::Native::try_from(sum).ok()).map(Some).ok_or_else(|| out_of_range(&name, &output))
        });
        let sums: PrimitiveArray<T> = sums.collect::<Result<_>>()?;
        Ok(Arc::new(sums.with_data_type(output.clone())))
    })
}

fn sum_of_intervals<T: Parts>(name: String) -> Finish<IntervalTotal<T>> {
    Arc::new(move |totals| {
        let sums = totals.iter().map(|total| match total.count() {
            0 => Ok(None),
            _ => total.sum().map(Some).ok_or_else(|| out_of_range(&name, &T::DATA_TYPE)),
        });
        Ok(Arc::new(sums.collect::<Result<PrimitiveArray<T>>>()?))
    })
}

fn out_of_range(name: &str, kind: &DataType) -> DataFusionError {
    let (kind, advice) = match kind {
        DataType::Int64 => ("bigint", ": cast the argument, as in sum(CAST(x AS DECIMAL(38, 0)))"),
        DataType::UInt64 => ("unsigned bigint", ": cast the argument, as in sum(CAST(x AS DECIMAL(38, 0)))"),
        DataType::Duration(_) | DataType::Interval(_) => ("interval", ""),
        _ => ("decimal", ": cast the argument to DOUBLE"),
    };
    // `alias1` is the name that the engine gives to the argument of the DISTINCT aggregates if they all have the same
    // argument.
    let name = if name == "sum(alias1)" { "sum(DISTINCT …)" } else { name };
    let advice = match (name.starts_with("array_"), advice) {
        (false, advice) => advice,
        (true, "") => "",
        (true, _) => ": use sum over unnest(…), and cast its argument",
    };
    DataFusionError::Execution(format!("{kind} out of range in {name}{advice}"))
}

impl AggregateUDFImpl for ExactAggregate {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>>;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        if let (Kind::Average, [DataType::Interval(_)]) = (self.kind, kinds) {
            let message = "the average of intervals is not supported: use avg(extract(epoch FROM x)), in seconds";
            return Err(DataFusionError::NotImplemented(message.to_owned()));
        }
        match (self.kind, kinds) {
            (
                Kind::Average,
                [
                    DataType::Decimal32(precision, scale)
                    | DataType::Decimal64(precision, scale)
                    | DataType::Decimal128(precision, scale),
                ],
            ) => Ok(average_type(*precision, *scale)),
            _ => self.inner.return_type(kinds),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let (input, output) = (args.input_fields[0].data_type(), args.return_field.data_type());
        match self.kind.with_total(input, output, args.name, BuildFields(args.name)) {
            Some(_) if args.is_distinct => Ok(vec![DistinctValues::state_field(args.name, input)]),
            Some(fields) => Ok(fields),
            None => self.inner.state_fields(args),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (input, output) = (args.expr_fields[0].data_type(), args.return_field.data_type());
        if matches!(input, DataType::Decimal256(precision, _) if *precision > HUGE_DECIMAL_DIGITS_MAX) {
            return Err(DataFusionError::NotImplemented(format!(
                "{} of a decimal with more than {HUGE_DECIMAL_DIGITS_MAX} digits is not supported: cast the argument to DECIMAL(38, 0)",
                self.name()
            )));
        }
        match self.kind.with_total(input, output, args.name, BuildAccumulator) {
            Some(total) if args.is_distinct => Ok(DistinctValues::boxed(input.clone(), total)),
            Some(total) => Ok(total),
            None => self.inner.accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (input, output) = (args.expr_fields[0].data_type(), args.return_field.data_type());
        match self.kind.with_total(input, output, args.name, BuildAccumulator) {
            Some(_) => self.accumulator(args),
            None => self.inner.create_sliding_accumulator(args),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        let (input, output) = (args.expr_fields[0].data_type(), args.return_field.data_type());
        match self.kind.with_total(input, output, args.name, BuildFields(args.name)) {
            Some(_) => !args.is_distinct,
            None => self.inner.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let (input, output) = (args.expr_fields[0].data_type(), args.return_field.data_type());
        match self.kind.with_total(input, output, args.name, BuildGroups) {
            Some(groups) => Ok(groups),
            None => self.inner.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}
