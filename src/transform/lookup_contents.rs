//! The contents of a lookup table, and the limits on them.
//!
//! **Invariant:** queries get rows only from [`LoadedLookup::rows_of`], which returns no rows of another tenant.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::contract::TenantId;
use crate::error::Error;

/// The contents of a lookup table.
#[derive(Debug)]
pub struct LoadedLookup {
    pub(super) schema: SchemaRef,
    /// All rows, for transforms.
    pub(super) batches: Arc<Vec<RecordBatch>>,
    pub(super) rows: usize,
    /// The rows that queries can read.
    pub(super) queryable: QueryableRows,
}

/// The rows of a lookup table that queries can read.
#[derive(Debug, Clone)]
pub(super) enum QueryableRows {
    /// No rows: only transforms read the lookup table.
    None,
    /// All rows, for every tenant.
    All,
    /// The rows of each tenant, in arrays that contain no values of other tenants. Rows that belong to no tenant are
    /// omitted.
    ByTenant(BTreeMap<Box<str>, Arc<Vec<RecordBatch>>>),
}

impl LoadedLookup {
    /// Returns the columns. If queries can read the lookup table, all columns are nullable and have no metadata.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns the rows that `tenant` may query. The returned arrays are shared by all queries.
    pub fn rows_of(&self, tenant: &TenantId) -> Arc<Vec<RecordBatch>> {
        match &self.queryable {
            QueryableRows::None => Arc::default(),
            QueryableRows::All => Arc::clone(&self.batches),
            QueryableRows::ByTenant(rows) => rows.get(tenant.as_str()).cloned().unwrap_or_default(),
        }
    }
}

/// The limits on a lookup's size and loading time.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupLimits {
    /// The maximum number of bytes. This limit applies to the file, and separately to the contents in memory.
    pub(super) bytes_max: usize,
    pub(super) rows_max: usize,
    pub(super) time_max: Duration,
}

impl LookupLimits {
    /// Returns the error for a lookup that exceeds `bytes_max`.
    pub(super) fn too_large(&self) -> Error {
        Error::limited(format!("the lookup has more than {} bytes (limit ingest.lookup_bytes_max)", self.bytes_max))
    }

    /// Returns the error for a lookup that exceeds `rows_max`.
    pub(super) fn too_many_rows(&self) -> Error {
        Error::limited(format!("the lookup has more than {} rows (limit ingest.lookup_rows_max)", self.rows_max))
    }
}
