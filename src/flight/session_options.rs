//! The options that a client sets with `SetSessionOptions`. The server has no other session state.
//!
//! Each option is checked separately. The response contains an error for each refused option, as the protocol
//! specifies. Only the option `types` has an effect. The server stores it for each token (issuer, subject, token id)
//! until the token expires, so clients do not need cookies. The options `catalog` and `schema` are checked but have no
//! effect, because there is only one catalog and one schema.
//!
//! **Invariant:** no session option affects which tenants' data is visible. An unknown option, such as `tenant`, is
//! refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use prost::Message;

use super::signed_handle::digest;
use crate::clock::Micros;
use crate::config::TypeProfile;
use crate::error::{Error, Result};
use crate::query::{CATALOG, SCHEMA};
use crate::tenancy::Access;

/// The maximum number of tokens for which `types` is stored. When the limit is reached, callers with other tokens
/// cannot set `types`.
const SESSIONS_MAX: usize = 10_000;

const KEY_CATALOG: &str = "catalog";
const KEY_SCHEMA: &str = "schema";
const KEY_TYPES: &str = "types";

/// The session options of all callers.
pub(super) struct SessionOptions {
    default: TypeProfile,
    /// The type profiles that callers have set. The key is a digest of the caller's token.
    overrides: Mutex<BTreeMap<[u8; 32], TypesOverride>>,
}

struct TypesOverride {
    types: TypeProfile,
    expires: Micros,
}

impl SessionOptions {
    /// Creates the session options. Initially, every caller has the type profile `default`.
    pub(super) fn new(default: TypeProfile) -> Self {
        Self { default, overrides: Mutex::default() }
    }

    /// Returns the type profile of this caller.
    pub(super) fn types(&self, access: &Access) -> TypeProfile {
        self.lock().get(&key(access)).map_or(self.default, |entry| entry.types)
    }

    /// Handles `SetSessionOptions`. The result contains an error for each option that is unknown or has an invalid
    /// value.
    pub(super) fn set(
        &self,
        access: &Access,
        request: &SetSessionOptionsRequest,
        now: Micros,
    ) -> SetSessionOptionsResult {
        let errors = request
            .session_options
            .iter()
            .filter_map(|(name, value)| {
                let error = self.set_one(access, name, value.text(), now).err()?;
                Some((name.clone(), SessionOptionError { value: error.into() }))
            })
            .collect();
        SetSessionOptionsResult { errors }
    }

    fn set_one(
        &self,
        access: &Access,
        name: &str,
        value: Option<&str>,
        now: Micros,
    ) -> Result<(), SessionOptionErrorValue> {
        match name {
            KEY_CATALOG => check_value(value, CATALOG),
            KEY_SCHEMA => check_value(value, SCHEMA),
            KEY_TYPES => {
                let types = value.and_then(parse_types).ok_or(SessionOptionErrorValue::InvalidValue)?;
                self.set_types(access, types, now)
            }
            _ => Err(SessionOptionErrorValue::InvalidName),
        }
    }

    fn set_types(&self, access: &Access, types: TypeProfile, now: Micros) -> Result<(), SessionOptionErrorValue> {
        let mut overrides = self.lock();
        if types == self.default {
            overrides.remove(&key(access));
            return Ok(());
        }
        if overrides.len() >= SESSIONS_MAX {
            overrides.retain(|_, entry| entry.expires > now);
        }
        if overrides.len() >= SESSIONS_MAX && !overrides.contains_key(&key(access)) {
            return Err(SessionOptionErrorValue::Error);
        }
        overrides.insert(key(access), TypesOverride { types, expires: access.expires() });
        Ok(())
    }

    /// Handles `GetSessionOptions`.
    pub(super) fn get(&self, access: &Access) -> GetSessionOptionsResult {
        let types = match self.types(access) {
            TypeProfile::Compat => "compat",
            TypeProfile::Native => "native",
        };
        let session_options = [(KEY_CATALOG, CATALOG), (KEY_SCHEMA, SCHEMA), (KEY_TYPES, types)]
            .map(|(name, value)| (name.to_owned(), SessionOptionValue::from_text(value)))
            .into();
        GetSessionOptionsResult { session_options }
    }

    /// Handles `CloseSession`, which resets the caller's options.
    pub(super) fn close(&self, access: &Access) -> CloseSessionResult {
        self.lock().remove(&key(access));
        CloseSessionResult { status: CLOSED }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<[u8; 32], TypesOverride>> {
        self.overrides.lock().expect("nothing panics while it holds this lock")
    }
}

/// Parses a type profile, which is the value of the session option `types` and of the header `x-glasshouse-types`.
pub(super) fn parse_types(text: &str) -> Option<TypeProfile> {
    match text {
        "compat" => Some(TypeProfile::Compat),
        "native" => Some(TypeProfile::Native),
        _ => None,
    }
}

fn check_value(value: Option<&str>, known: &str) -> Result<(), SessionOptionErrorValue> {
    if value == Some(known) { Ok(()) } else { Err(SessionOptionErrorValue::InvalidValue) }
}

fn key(access: &Access) -> [u8; 32] {
    let (issuer, subject, token) = access.identity();
    digest(&[issuer.as_bytes(), subject.as_bytes(), token.as_bytes(), &access.fingerprint()])
}

/// Decodes the body of a session action.
pub(super) fn decode<M: Message + Default>(body: &[u8], action: &str) -> Result<M> {
    M::decode(body).map_err(|error| Error::invalid(format!("malformed body of `{action}`")).with_source(error))
}

// These messages of `Flight.proto` are missing from arrow-flight. Each type is named after its message, unless a
// comment gives the name of the message.

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    pub(super) session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub(super) errors: HashMap<String, SessionOptionError>,
}

/// The message `SetSessionOptionsResult.Error`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionOptionError {
    #[prost(enumeration = "SessionOptionErrorValue", tag = "1")]
    value: i32,
}

/// The enum `SetSessionOptionsResult.ErrorValue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum SessionOptionErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub(super) session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The value `CloseSessionResult.Status.CLOSED`.
const CLOSED: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct SessionOptionValue {
    #[prost(oneof = "OptionValueKind", tags = "1, 2, 3, 4, 5")]
    value: Option<OptionValueKind>,
}

/// The field `SessionOptionValue.option_value`.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OptionValueKind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Float(f64),
    #[prost(message, tag = "5")]
    List(StringListValue),
}

/// The message `SessionOptionValue.StringListValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StringListValue {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

impl SessionOptionValue {
    pub(super) fn from_text(text: &str) -> Self {
        Self { value: Some(OptionValueKind::Text(text.to_owned())) }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Some(OptionValueKind::Text(text)) => Some(text),
            _ => None,
        }
    }
}

impl SetSessionOptionsResult {
    #[cfg(test)]
    pub(super) fn error(&self, name: &str) -> Option<SessionOptionErrorValue> {
        self.errors.get(name).map(SessionOptionError::value)
    }
}
