//! The placeholder that Debezium sends instead of a value that it does not know.
//!
//! PostgreSQL stores large values outside of the row (TOAST), and does not write such a value to its log if an update
//! leaves the value unchanged. Debezium then sends a placeholder, in a form that fits the type of the column. The forms
//! are those of `UnchangedToastedPlaceholder` in Debezium's connector for PostgreSQL.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE as BASE64_URL};
use serde_json::json;

use crate::config::UNAVAILABLE_VALUE;

/// The element that Debezium puts into an array of UUIDs for the default placeholder, which is the UUID of version 3
/// for the bytes of the placeholder.
const DEFAULT_UUID: &str = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";

/// The placeholder in all forms, each as compact JSON.
#[derive(Debug, Clone)]
pub(in crate::transform) struct UnavailableValue(Vec<String>);

impl UnavailableValue {
    /// Creates the forms of a placeholder, which is the value of Debezium's `unavailable.value.placeholder`.
    pub(in crate::transform) fn new(placeholder: &str) -> Self {
        let bytes = placeholder.as_bytes();
        let encoded = [BASE64.encode(bytes), BASE64_URL.encode(bytes), hex(bytes)];
        let map = json!({ placeholder: placeholder });
        let mut forms = vec![json!(placeholder), json!([placeholder]), json!(bytes), json!(map.to_string()), map];
        forms.extend(encoded.iter().flat_map(|text| [json!(text), json!([text])]));
        if placeholder == UNAVAILABLE_VALUE {
            forms.push(json!([DEFAULT_UUID]));
        }
        Self(forms.iter().map(ToString::to_string).collect())
    }

    /// Returns true if a value, as compact JSON, is the placeholder.
    pub(super) fn is(&self, value: &str) -> bool {
        self.0.iter().any(|form| form == value)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
