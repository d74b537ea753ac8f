//! Checks that a text that is read as a number is not base64. `base64_guard.rs` describes the purpose.

use datafusion::common::exec_err;
use datafusion::error::Result;

/// The maximum number of characters of a string in an error message.
const CHARS_SHOWN_MAX: usize = 60;
/// The end of the error message, after the string.
pub(crate) const NOT_A_NUMBER: &str = "cannot be read as a number, because it may be a decimal in base64; set \
    `schemas.enable` = true in Debezium's converter, or set Debezium's `decimal.handling.mode` to string and the source's \
    `decimals` to \"text\"";

/// Returns an error if a text may be base64.
pub(super) fn check_number(text: &str) -> Result<()> {
    if !may_be_base64(text) {
        return Ok(());
    }
    let shown: String = text.chars().take(CHARS_SHOWN_MAX).collect();
    exec_err!("the string `{shown}` {NOT_A_NUMBER}")
}

/// Returns true if a text is base64 of at least one byte, in the standard alphabet and with padding.
fn may_be_base64(text: &str) -> bool {
    let data = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let is_data = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    !data.is_empty() && text.len().is_multiple_of(4) && data.bytes().all(is_data)
}
