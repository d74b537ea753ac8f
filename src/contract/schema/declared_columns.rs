//! [`DeclaredColumns`] contains the columns and the field tree of a table, in the order of their declaration.

use prost_reflect::MessageDescriptor;

use super::column::Column;
use super::fields::Tree;
use crate::config::ColumnKind;
use crate::error::did_you_mean;

/// The maximum number of columns in a table.
pub(in crate::contract) const COLUMNS_MAX: usize = 1024;

/// The error messages for all errors in a declaration.
pub(in crate::contract) type DeclarationErrors = Vec<String>;

/// A table's columns and field tree in the order of their declaration, which is not the order in which columns are
/// stored.
#[derive(Debug, Default)]
pub(in crate::contract) struct DeclaredColumns {
    /// The table's description.
    pub(in crate::contract) description: String,
    pub(in crate::contract) columns: Vec<Column>,
    /// For each column, the dotted path of the field that supplies its values.
    pub(in crate::contract) paths: Vec<String>,
    pub(in crate::contract) tree: Tree,
    /// True if undeclared fields are stored in the map column.
    pub(in crate::contract) unknown_to_map: bool,
    /// The protobuf message type, or `None` if the table is declared as a list of columns.
    pub(in crate::contract) message: Option<MessageDescriptor>,
}

impl DeclaredColumns {
    /// Finds the column with the name `name`. If there is none, finds the column whose field has the dotted path
    /// `name`.
    pub(in crate::contract) fn find(&self, name: &str) -> Option<usize> {
        let by_name = self.columns.iter().position(|column| column.name == name);
        by_name.or_else(|| self.paths.iter().position(|path| path == name))
    }

    /// Checks that the column `name` exists, and calls `fits` to check its kind. If a check fails, returns an error
    /// message. `list` is the setting that names the column, and `wanted` describes the kinds that the setting accepts.
    pub(in crate::contract) fn check_kind(
        &self,
        list: &str,
        name: &str,
        wanted: &str,
        fits: impl Fn(ColumnKind) -> bool,
        errors: &mut DeclarationErrors,
    ) {
        match self.find(name).map(|index| self.columns[index].kind) {
            None => errors.push(self.unknown(list, name)),
            Some(kind) if !fits(kind) => {
                errors.push(format!("`{list}` names `{name}`, which is {kind}; it must be {wanted}"));
            }
            Some(_) => {}
        }
    }

    /// Returns the error message for a setting that names an unknown column.
    pub(in crate::contract) fn unknown(&self, list: &str, name: &str) -> String {
        let hint = did_you_mean(name, self.columns.iter().map(|column| column.name.as_str()));
        format!("`{list}` names the unknown column `{name}`{hint}")
    }
}
