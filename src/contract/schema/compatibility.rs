//! Checks that a protobuf message type is compatible with a contract. A contract identifies fields by number, so a
//! message of a different type with the same field numbers would be stored in the wrong columns without an error.
//!
//! Compares a contract that has protobuf field numbers with the message type that the writer used, and returns the
//! first difference, if any. A field that exists in only one of the two types is allowed, because contracts and
//! messages evolve.
//!
//! **Invariant:** a field that exists in both types has the same wire type and the same name. There is one exception:
//! if the two message types have the same full name, a field may have been renamed. A field was renamed if its old name
//! does not occur in the new type, and its new name does not occur in the old type.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use super::fields::{Field, FieldEncoding, Target};
use super::table::Contract;
use crate::config::ColumnKind;
use crate::contract::message::dynamic_protobuf::MessageType;

impl Contract {
    /// Checks that the contract can read messages of type `written`. The error states the first difference and how to
    /// resolve it.
    pub fn agrees(&self, written: &MessageType) -> Result<(), String> {
        let is_same = self.message.as_ref().is_some_and(|declared| declared.full_name() == written.0.full_name());
        self.node_agrees(0, &written.0, is_same).map_err(|what| {
            let declared = self.message.as_ref().map_or("no message", |declared| declared.full_name());
            format!(
                "message type `{}` is incompatible with type `{declared}` of table `{}` ({what}): send such messages to a separate topic or table",
                written.name(),
                self.name
            )
        })
    }

    /// Returns the message type that declares the table, or `None` if the table is declared as a list of columns.
    pub fn message(&self) -> Option<MessageType> {
        self.message.clone().map(MessageType)
    }

    fn node_agrees(&self, node: usize, written: &MessageDescriptor, may_rename: bool) -> Result<(), String> {
        let fields = &self.tree.nodes[node].fields;
        // A field with number 0 only declares a JSON key of a column, so it cannot be compared.
        for field in fields.iter().filter(|field| field.number > 0 && !matches!(field.target, Target::Ignored)) {
            let Some(other) = written.get_field(field.number) else {
                if let Some(moved) = written.get_field_by_name(&field.name) {
                    return Err(format!("`{}` is field {}, not {}", field.name, moved.number(), field.number));
                }
                continue;
            };
            if other.name() != field.name {
                let is_known = fields.iter().any(|declared| declared.name == other.name() && declared.number > 0)
                    || written.get_field_by_name(&field.name).is_some();
                if !may_rename || is_known {
                    return Err(format!("field {} is `{}`, not `{}`", field.number, other.name(), field.name));
                }
            }
            self.field_agrees(field, &other, may_rename)
                .map_err(|what| format!("field {} (`{}`) {what}", field.number, field.name))?;
        }
        Ok(())
    }

    fn field_agrees(&self, field: &Field, written: &FieldDescriptor, may_rename: bool) -> Result<(), String> {
        let kind = written.kind();
        let differs = || Err(format!("is {}", type_name(written)));
        match (field.target, &kind) {
            (Target::Ignored, _) => Ok(()),
            (Target::Map(key, value), Kind::Message(entry)) if written.is_map() => {
                let (declared_key, declared_value) =
                    (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
                let same = self.kind_agrees(key, &declared_key)? && self.kind_agrees(value, &declared_value)?;
                if same { Ok(()) } else { differs() }
            }
            _ if written.is_map() || written.is_group() || written.is_list() != is_list(field.target) => differs(),
            (Target::Node(inner), Kind::Message(message)) => self.node_agrees(inner, message, may_rename),
            (Target::Column(leaf), kind) if self.kind_agrees(leaf.encoding, kind)? => Ok(()),
            _ => differs(),
        }
    }

    fn kind_agrees(&self, encoding: FieldEncoding, kind: &Kind) -> Result<bool, String> {
        Ok(match (encoding, kind) {
            (FieldEncoding::Bool, Kind::Bool)
            | (FieldEncoding::Int32, Kind::Int32)
            | (FieldEncoding::Int64, Kind::Int64)
            | (FieldEncoding::Uint32, Kind::Uint32)
            | (FieldEncoding::Uint64, Kind::Uint64)
            | (FieldEncoding::Sint32, Kind::Sint32)
            | (FieldEncoding::Sint64, Kind::Sint64)
            | (FieldEncoding::Fixed32, Kind::Fixed32)
            | (FieldEncoding::Fixed64, Kind::Fixed64)
            | (FieldEncoding::Sfixed32, Kind::Sfixed32)
            | (FieldEncoding::Sfixed64, Kind::Sfixed64)
            | (FieldEncoding::Float, Kind::Float)
            | (FieldEncoding::Double, Kind::Double)
            | (FieldEncoding::Text, Kind::String)
            | (FieldEncoding::Bytes, Kind::Bytes) => true,
            (FieldEncoding::Time, Kind::Message(message)) => message.full_name() == "google.protobuf.Timestamp",
            (FieldEncoding::Enum(names), Kind::Enum(written)) => {
                let names = &self.tree.enums[names];
                for value in written.values() {
                    let declared = names.name(value.number());
                    // If several names have the same number, the contract keeps only the first name.
                    let mut same = written.values().filter(|other| other.number() == value.number());
                    if declared.is_some_and(|declared| same.all(|other| other.name() != declared)) {
                        let declared = declared.unwrap_or_default();
                        return Err(format!("names value {} `{}`, not `{declared}`", value.number(), value.name()));
                    }
                }
                true
            }
            _ => false,
        })
    }
}

fn is_list(target: Target) -> bool {
    matches!(target, Target::Column(leaf) if matches!(leaf.kind, ColumnKind::List(_)))
}

/// Returns a field's type in `.proto` notation, for error messages.
fn type_name(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => format!("message `{}`", message.full_name()),
        Kind::Enum(names) => format!("enum `{}`", names.full_name()),
        plain => format!("{plain:?}").to_lowercase(),
    };
    match (field.is_map(), field.is_list()) {
        (true, _) => "a map".to_owned(),
        (_, true) => format!("repeated {kind}"),
        _ => kind,
    }
}
