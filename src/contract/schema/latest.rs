//! Checks the `latest` section of a table. A table with this section shows only the latest version of each key.
//!
//! The check finds three kinds of columns: the columns that form the key, the column that orders the versions, and the
//! column that marks deleted keys. It returns their indexes, or the errors in the section.
//!
//! **Invariant:** ingest stores every version. Queries select the version to show.

use super::column::RECEIVED_TIME;
use super::declared_columns::{DeclarationErrors, DeclaredColumns};
use crate::config::{ColumnKind, TableConfig};

/// The columns that determine the latest version of each key, as indexes into the contract's `columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// The columns that form the key together with the tenant. In a key, two nulls are equal.
    pub key: Vec<usize>,
    /// The column that orders the versions: an integer, timestamp, date or text. Texts are compared byte by byte. The
    /// row with the greatest value is the newest version, and a null is less than every value. If several rows have the
    /// same value, the row with the latest receive time is the newest. If the receive times are equal too, the row with
    /// the greatest id is the newest.
    pub by: usize,
    /// The boolean column that marks deleted keys. A key is hidden if this column is true in its latest version.
    pub deleted: Option<usize>,
}

/// The columns of [`Latest`] as indexes into [`DeclaredColumns::columns`], which is not in stored order.
#[derive(Debug, Clone)]
pub(in crate::contract) struct LatestColumns {
    key: Vec<usize>,
    /// `None` if the server's receive time orders the versions.
    by: Option<usize>,
    deleted: Option<usize>,
}

impl LatestColumns {
    /// Converts indexes in declared order to indexes in stored order. `positions` contains the stored index of each
    /// declared column, and `received` is the stored index of the receive time.
    pub(in crate::contract) fn stored(&self, positions: &[usize], received: usize) -> Latest {
        Latest {
            key: self.key.iter().map(|column| positions[*column]).collect(),
            by: self.by.map_or(received, |column| positions[column]),
            deleted: self.deleted.map(|column| positions[column]),
        }
    }
}

/// Checks the `latest` section. Returns `None` if the section is missing or has an error.
pub(in crate::contract) fn check(
    declared: &DeclaredColumns,
    config: &TableConfig,
    errors: &mut DeclarationErrors,
) -> Option<LatestColumns> {
    let latest = config.latest.as_ref()?;
    let before = errors.len();
    if latest.key.is_empty() {
        errors.push("`latest.key` is empty: name the columns that identify the object that a row describes".into());
    }
    for name in &latest.key {
        declared.check_kind(
            "latest.key",
            name,
            "text, uuid, bool, int32, int64, decimal, timestamp, date, time or bytes",
            is_key,
            errors,
        );
    }
    if latest.by != RECEIVED_TIME {
        declared.check_kind("latest.by", &latest.by, "text, int32, int64, timestamp or date", is_rank, errors);
    }
    if let Some(name) = &latest.deleted {
        declared.check_kind("latest.deleted", name, "bool", |kind| kind == ColumnKind::Bool, errors);
    }
    let key: Vec<usize> = latest.key.iter().filter_map(|name| declared.find(name)).collect();
    let by = declared.find(&latest.by);
    let deleted = latest.deleted.as_ref().and_then(|name| declared.find(name));
    let name = |column: usize| &declared.columns[column].name;
    if let Some(repeated) = (1..key.len()).find(|index| key[..*index].contains(&key[*index])) {
        errors.push(format!("`latest.key` names `{}` more than once: name it once", name(key[repeated])));
    }
    for (role, column) in [("by", by), ("deleted", deleted)] {
        if let Some(column) = column.filter(|column| key.contains(column)) {
            let name = name(column);
            errors.push(format!(
                "`latest.{role}` names `{name}`, which is also in `latest.key`; all versions of a key have the same value in this column: name another column"
            ));
        }
    }
    if let Some(id) = declared.find(&config.id).filter(|id| key.contains(id)) {
        let name = name(id);
        errors.push(format!(
            "`latest.key` names `{name}`, which is the table's `id`; an event whose id is already stored is a duplicate, not a \
             newer version: give each version its own id and choose another key"
        ));
    }
    (errors.len() == before).then_some(LatestColumns { key, by, deleted })
}

/// Returns true if a column of this kind can be part of a key. Equality is unreliable for floats, and is not defined for
/// maps and JSON. A list does not identify an object.
fn is_key(kind: ColumnKind) -> bool {
    use ColumnKind::{Float32, Float64, Json, List, Map};
    !matches!(kind, Float32 | Float64 | Json | List(_) | Map)
}

fn is_rank(kind: ColumnKind) -> bool {
    matches!(kind, ColumnKind::Text | ColumnKind::Int32 | ColumnKind::Int64 | ColumnKind::Timestamp | ColumnKind::Date)
}
