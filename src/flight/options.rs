//! Session options: the values that a client has set with `SetSessionOptions`. There are no sessions on the server.
//!
//! In: option names and values. Out: an error per name, as the protocol specifies. There is one catalog and one schema,
//! so setting them only checks them; the only option with an effect is `types`. It is kept per token (issuer, subject,
//! token id), so that it works without cookies, until the token expires.
//!
//! **Invariant:** no option changes whose data is visible: an unknown name (`tenant`, for example) is refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use prost::Message;

use super::handle::digest;
use crate::clock::Micros;
use crate::config::TypeProfile;
use crate::error::{Error, Result};
use crate::query::{CATALOG, SCHEMA};
use crate::tenancy::Access;

/// The maximum number of tokens with their own options. Beyond it, a new token cannot set `types`.
const SESSIONS_MAX: usize = 10_000;

const KEY_CATALOG: &str = "catalog";
const KEY_SCHEMA: &str = "schema";
const KEY_TYPES: &str = "types";

/// The options of all callers.
pub(super) struct Options {
    default: TypeProfile,
    chosen: Mutex<BTreeMap<[u8; 32], Choice>>,
}

struct Choice {
    types: TypeProfile,
    expires: Micros,
}

impl Options {
    /// No caller has set anything but `default`.
    pub(super) fn new(default: TypeProfile) -> Self {
        Self { default, chosen: Mutex::default() }
    }

    /// The type profile of this caller.
    pub(super) fn types(&self, access: &Access) -> TypeProfile {
        self.lock().get(&key(access)).map_or(self.default, |choice| choice.types)
    }

    /// Handles `SetSessionOptions`: returns an error for each option that is unknown or has an invalid value.
    pub(super) fn set(&self, access: &Access, request: &SetRequest, now: Micros) -> SetResult {
        let errors = request
            .session_options
            .iter()
            .filter_map(|(name, value)| {
                let error = self.set_one(access, name, value.text(), now).err()?;
                Some((name.clone(), SetError { value: error.into() }))
            })
            .collect();
        SetResult { errors }
    }

    fn set_one(&self, access: &Access, name: &str, value: Option<&str>, now: Micros) -> Result<(), SetErrorValue> {
        match name {
            KEY_CATALOG => is_one_of(value, CATALOG),
            KEY_SCHEMA => is_one_of(value, SCHEMA),
            KEY_TYPES => {
                let types = value.and_then(parse_types).ok_or(SetErrorValue::InvalidValue)?;
                self.choose(access, types, now)
            }
            _ => Err(SetErrorValue::InvalidName),
        }
    }

    fn choose(&self, access: &Access, types: TypeProfile, now: Micros) -> Result<(), SetErrorValue> {
        let mut chosen = self.lock();
        if types == self.default {
            chosen.remove(&key(access));
            return Ok(());
        }
        if chosen.len() >= SESSIONS_MAX {
            chosen.retain(|_, choice| choice.expires > now);
        }
        if chosen.len() >= SESSIONS_MAX && !chosen.contains_key(&key(access)) {
            return Err(SetErrorValue::Error);
        }
        chosen.insert(key(access), Choice { types, expires: access.expires() });
        Ok(())
    }

    /// Handles `GetSessionOptions`.
    pub(super) fn get(&self, access: &Access) -> GetResult {
        let types = match self.types(access) {
            TypeProfile::Compat => "compat",
            TypeProfile::Native => "native",
        };
        let session_options = [(KEY_CATALOG, CATALOG), (KEY_SCHEMA, SCHEMA), (KEY_TYPES, types)]
            .map(|(name, value)| (name.to_owned(), OptionValue::from_text(value)))
            .into();
        GetResult { session_options }
    }

    /// Handles `CloseSession`: resets the options of the caller.
    pub(super) fn close(&self, access: &Access) -> CloseResult {
        self.lock().remove(&key(access));
        CloseResult { status: CLOSED }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<[u8; 32], Choice>> {
        self.chosen.lock().expect("nothing panics while it holds this lock")
    }
}

/// Parses the value of the `types` option and header.
pub(super) fn parse_types(text: &str) -> Option<TypeProfile> {
    match text {
        "compat" => Some(TypeProfile::Compat),
        "native" => Some(TypeProfile::Native),
        _ => None,
    }
}

fn is_one_of(value: Option<&str>, known: &str) -> Result<(), SetErrorValue> {
    if value == Some(known) { Ok(()) } else { Err(SetErrorValue::InvalidValue) }
}

fn key(access: &Access) -> [u8; 32] {
    let (issuer, subject, token) = access.identity();
    digest(&[issuer.as_bytes(), subject.as_bytes(), token.as_bytes(), &access.fingerprint()])
}

/// Decodes the body of a session action.
pub(super) fn decode<M: Message + Default>(body: &[u8], action: &str) -> Result<M> {
    M::decode(body).map_err(|error| Error::invalid(format!("malformed body of `{action}`")).with_source(error))
}

// The messages of Flight.proto that arrow-flight lacks.

/// `SetSessionOptionsRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetRequest {
    #[prost(map = "string, message", tag = "1")]
    pub(super) session_options: HashMap<String, OptionValue>,
}

/// `SetSessionOptionsResult`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    pub(super) errors: HashMap<String, SetError>,
}

/// `SetSessionOptionsResult.Error`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SetError {
    #[prost(enumeration = "SetErrorValue", tag = "1")]
    value: i32,
}

/// `SetSessionOptionsResult.ErrorValue`
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum SetErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

/// `GetSessionOptionsResult`
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetResult {
    #[prost(map = "string, message", tag = "1")]
    pub(super) session_options: HashMap<String, OptionValue>,
}

/// `CloseSessionResult`
#[derive(Clone, PartialEq, Message)]
pub(super) struct CloseResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `CloseSessionResult.Status.CLOSED`
const CLOSED: i32 = 1;

/// `SessionOptionValue`
#[derive(Clone, PartialEq, Message)]
pub(super) struct OptionValue {
    #[prost(oneof = "AnyValue", tags = "1, 2, 3, 4, 5")]
    value: Option<AnyValue>,
}

/// `SessionOptionValue.option_value`
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum AnyValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Float(f64),
    #[prost(message, tag = "5")]
    List(TextList),
}

/// `SessionOptionValue.StringListValue`
#[derive(Clone, PartialEq, Message)]
pub(super) struct TextList {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

impl OptionValue {
    pub(super) fn from_text(text: &str) -> Self {
        Self { value: Some(AnyValue::Text(text.to_owned())) }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Some(AnyValue::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl SetResult {
    #[cfg(test)]
    pub(super) fn error(&self, name: &str) -> Option<SetErrorValue> {
        self.errors.get(name).map(SetError::value)
    }
}
