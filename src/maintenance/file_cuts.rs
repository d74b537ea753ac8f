//! Where merged files and their row groups end.

use std::sync::Arc;

/// The maximum number of rows of a row group with several tenants.
pub(super) const GROUP_ROWS_MAX: usize = 131_072;
/// The number of rows from which a row group ends at the end of a tenant.
pub(super) const GROUP_ROWS_MIN: usize = GROUP_ROWS_MAX / 2;

/// The maximum number of rows of a row group with only one tenant, at level 3.
pub(super) const LEVEL_3_GROUP_ROWS_MAX: usize = 8 * GROUP_ROWS_MAX;

/// Where files end.
#[derive(Debug, Clone)]
pub struct FileCuts {
    /// The first tenant of each range except the first, in order. A file contains rows of only one range.
    pub boundaries: Vec<Arc<str>>,
    /// The size in bytes from which a file ends at the end of a tenant. A tenant with its own row groups may fill
    /// several such files.
    pub file_bytes: u64,
    /// The maximum number of rows of a row group with only one tenant.
    pub tenant_group_rows_max: usize,
}

impl FileCuts {
    /// Files end at the end of a tenant once they have `file_bytes` bytes, and there are no ranges.
    pub fn by_size(file_bytes: u64) -> Self {
        Self { boundaries: Vec::new(), file_bytes, tenant_group_rows_max: GROUP_ROWS_MAX }
    }
}
