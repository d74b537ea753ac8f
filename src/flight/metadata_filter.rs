//! The filters of metadata commands. A catalog filter is an exact name, and all other filters are patterns.

use arrow::array::StringArray;
use arrow::compute::like;

use crate::error::{Error, Result};
use crate::query::CATALOG;

/// Returns true if a catalog filter matches [`CATALOG`]. An absent filter matches every catalog. An empty filter
/// matches only tables that have no catalog. This server has no such tables.
pub(super) fn is_catalog(filter: Option<&str>) -> bool {
    filter.is_none_or(|catalog| catalog == CATALOG)
}

/// Returns true if `name` matches a pattern with SQL's LIKE syntax: `%`, `_`, and the escapes `\%` and `\_`. An absent
/// pattern matches every name.
pub(super) fn is_like(pattern: Option<&str>, name: &str) -> Result<bool> {
    let Some(pattern) = pattern else { return Ok(true) };
    let matched = like(&StringArray::new_scalar(name), &StringArray::new_scalar(pattern))
        .map_err(|error| Error::invalid(format!("invalid search pattern `{pattern}`")).with_source(error))?;
    Ok(matched.value(0))
}
