//! Tables that show the newest version of each key: the key columns, and the column that orders versions.
//!
//! In: a table's columns and its `latest` section. Out: the chosen columns, or faults.
//! **Invariant:** ingest stores every version; queries select the version to show.

use super::declare::{DeclarationErrors, Declared, check_list, find};
use super::table::{ColumnKind, Contract, RECEIVED_TIME};
use crate::config::{CHANGES_SUFFIX, TableConfig};

/// How a table shows only the newest version of each key. Columns are indexes in [`Contract::columns`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// The key, together with the tenant. A null is a value like any other.
    pub key: Vec<usize>,
    /// An integer, timestamp or date. The greatest value is the newest version, a null the oldest. Ties are broken by
    /// the latest receive time, then by the greatest id.
    pub by: usize,
    /// A boolean. A key is not shown if this is true in its newest version.
    pub deleted: Option<usize>,
}

/// The same before columns are put into stored order, as indexes in [`Declared::columns`].
#[derive(Debug, Clone)]
pub(in crate::contract) struct LatestColumns {
    key: Vec<usize>,
    /// `None` for the server's receive time.
    by: Option<usize>,
    deleted: Option<usize>,
}

impl Contract {
    /// The name under which all versions are queried, if the table itself shows only the newest.
    pub fn changes_name(&self) -> Option<String> {
        self.latest.as_ref().map(|_| format!("{}{CHANGES_SUFFIX}", self.name))
    }

    /// The description of the table of all versions.
    pub fn changes_description(&self) -> String {
        format!("All versions of the rows of `{}`: {}", self.name, self.description)
    }
}

impl LatestColumns {
    /// Maps the chosen columns to stored order; `positions` is the stored index of each declared column.
    pub(in crate::contract) fn stored(&self, positions: &[usize], received: usize) -> Latest {
        Latest {
            key: self.key.iter().map(|column| positions[*column]).collect(),
            by: self.by.map_or(received, |column| positions[column]),
            deleted: self.deleted.map(|column| positions[column]),
        }
    }
}

/// Checks the `latest` section; `None` if there is none, or if it has a fault.
pub(in crate::contract) fn check(
    declared: &Declared,
    config: &TableConfig,
    faults: &mut DeclarationErrors,
) -> Option<LatestColumns> {
    let latest = config.latest.as_ref()?;
    let before = faults.len();
    if latest.key.is_empty() {
        faults.push("`latest.key` is empty: name the columns that identify what a row describes".into());
    }
    for name in &latest.key {
        check_list(declared, "latest.key", name, "a text, a bool, an integer, a time, a date or bytes", is_key, faults);
    }
    if latest.by != RECEIVED_TIME {
        check_list(declared, "latest.by", &latest.by, "an integer, a timestamp or a date", is_rank, faults);
    }
    if let Some(name) = &latest.deleted {
        check_list(declared, "latest.deleted", name, "bool", |kind| kind == ColumnKind::Bool, faults);
    }
    let key: Vec<usize> = latest.key.iter().filter_map(|name| find(declared, name)).collect();
    let by = find(declared, &latest.by);
    let deleted = latest.deleted.as_ref().and_then(|name| find(declared, name));
    let name = |column: usize| &declared.columns[column].name;
    if let Some(repeated) = (1..key.len()).find(|index| key[..*index].contains(&key[*index])) {
        faults.push(format!("`latest.key` names `{}` more than once: name it once", name(key[repeated])));
    }
    for (role, column) in [("by", by), ("deleted", deleted)] {
        if let Some(column) = column.filter(|column| key.contains(column)) {
            let name = name(column);
            faults.push(format!(
                "`latest.{role}` names `{name}`, which is in `latest.key`, so that versions of a key never differ in it: name another column"
            ));
        }
    }
    if let Some(id) = find(declared, &config.id).filter(|id| key.contains(id)) {
        let name = name(id);
        faults.push(format!(
            "`latest.key` names `{name}`, which is the table's `id`: an event with a stored id is a duplicate, not a newer \
             version; give each change its own id"
        ));
    }
    (faults.len() == before).then_some(LatestColumns { key, by, deleted })
}

/// Whether values of a kind have exact equality.
fn is_key(kind: ColumnKind) -> bool {
    !matches!(kind, ColumnKind::Float32 | ColumnKind::Float64 | ColumnKind::Map)
}

fn is_rank(kind: ColumnKind) -> bool {
    matches!(kind, ColumnKind::Int32 | ColumnKind::Int64 | ColumnKind::Timestamp | ColumnKind::Date)
}
