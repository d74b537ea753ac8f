//! Tables that show the newest version of each key: which columns name a thing, and which say how new a version of it is.
//!
//! In: a table's columns and what its `latest` says. Out: the columns chosen, or faults.
//! **Invariant:** ingest does not know it: every version is stored, and what is shown is decided when it is asked.

use super::declare::{DeclarationErrors, Declared, check_list, find};
use super::table::{ColumnKind, Contract, RECEIVED_TIME};
use crate::config::{CHANGES_SUFFIX, TableConfig};

/// How a table shows its rows: of each key the newest version only. Columns are places in [`Contract::columns`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// What names a thing, together with the tenant. A null is a value like any other.
    pub key: Vec<usize>,
    /// An integer, timestamp or date; the greatest is the newest version, a null the oldest. Of equal ones the version that
    /// was received last counts, then that with the greatest id.
    pub by: usize,
    /// A boolean; a key whose newest version has it true is not shown.
    pub deleted: Option<usize>,
}

/// The same before columns are put into stored order, as places in [`Declared::columns`].
#[derive(Debug, Clone)]
pub(in crate::contract) struct LatestColumns {
    key: Vec<usize>,
    /// None: the server's receive time.
    by: Option<usize>,
    deleted: Option<usize>,
}

impl Contract {
    /// Under which name all versions are asked, if the table itself shows the newest ones only.
    pub fn changes_name(&self) -> Option<String> {
        self.latest.as_ref().map(|_| format!("{}{CHANGES_SUFFIX}", self.name))
    }

    /// What is said of all versions.
    pub fn changes_description(&self) -> String {
        format!("All versions of the rows of `{}`: {}", self.name, self.description)
    }
}

impl LatestColumns {
    /// The chosen columns, where `places` says the stored place of each declared one.
    pub(in crate::contract) fn stored(&self, places: &[usize], received: usize) -> Latest {
        Latest {
            key: self.key.iter().map(|column| places[*column]).collect(),
            by: self.by.map_or(received, |column| places[column]),
            deleted: self.deleted.map(|column| places[column]),
        }
    }
}

/// Checks what `latest` names; `None` when there is none, or a fault.
pub(in crate::contract) fn check(
    declared: &Declared,
    config: &TableConfig,
    faults: &mut DeclarationErrors,
) -> Option<LatestColumns> {
    let latest = config.latest.as_ref()?;
    let before = faults.len();
    if latest.key.is_empty() {
        faults.push("`latest.key` is empty: name the columns that say what a row is about".into());
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
    if let Some(twice) = (1..key.len()).find(|place| key[..*place].contains(&key[*place])) {
        faults.push(format!("`latest.key` names `{}` twice", name(key[twice])));
    }
    for (role, column) in [("by", by), ("deleted", deleted)] {
        if let Some(column) = column.filter(|column| key.contains(column)) {
            let name = name(column);
            faults.push(format!(
                "`latest.{role}` names `{name}`, which is in `latest.key`: versions of one key would never differ in it"
            ));
        }
    }
    if let Some(id) = find(declared, &config.id).filter(|id| key.contains(id)) {
        let name = name(id);
        faults.push(format!(
            "`latest.key` names `{name}`, which is the table's `id`: an event of an id that was stored is a duplicate and \
             not a newer version; give each change an id of its own"
        ));
    }
    (faults.len() == before).then_some(LatestColumns { key, by, deleted })
}

/// Values that are equal or not, without a doubt.
fn is_key(kind: ColumnKind) -> bool {
    !matches!(kind, ColumnKind::Float32 | ColumnKind::Float64 | ColumnKind::Map)
}

fn is_rank(kind: ColumnKind) -> bool {
    matches!(kind, ColumnKind::Int32 | ColumnKind::Int64 | ColumnKind::Timestamp | ColumnKind::Date)
}
