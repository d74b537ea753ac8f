//! Escaped label values for metrics, and a limit on the number of distinct values.
//!
//! The encoder of `prometheus-client` does not escape label values. Without the escaping in [`Label`], a quotation mark
//! in a tenant's name would end the label value. The rest of the name would then be parsed as further labels.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A label value for a metric, which is escaped when it is encoded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Label(Cow<'static, str>);

/// The names and values of `N` labels.
pub(super) type Labels<const N: usize> = [(&'static str, Label); N];

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl Label {
    /// Creates a label value from a string that is known only at run time. The caller must bound the number of distinct
    /// values.
    pub(super) fn owned(text: impl Into<String>) -> Self {
        Self(Cow::Owned(text.into()))
    }
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            match part.char_indices().next_back() {
                Some((end, character @ ('\\' | '"'))) => write!(encoder, "{}\\{character}", &part[..end])?,
                Some((end, '\n')) => write!(encoder, "{}\\n", &part[..end])?,
                _ => encoder.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Bounds the number of distinct label values. The first `max` names get their own value. All other names share
/// [`LabelNames::OTHER`].
#[derive(Debug)]
pub(super) struct LabelNames {
    seen: Mutex<HashSet<String>>,
    max: usize,
}

impl LabelNames {
    /// The label value that all names beyond the limit share.
    pub(super) const OTHER: &'static str = "other";

    /// Creates an empty set that can hold at most `max` names.
    pub(super) fn new(max: usize) -> Self {
        Self { seen: Mutex::default(), max }
    }

    /// Returns the label value for `name`.
    pub(super) fn label(&self, name: &str) -> Label {
        // A poisoned lock can be ignored, because a panic cannot leave the set in an inconsistent state.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(name) {
            return Label::owned(name);
        }
        if seen.len() >= self.max {
            return Label::from(Self::OTHER);
        }
        seen.insert(name.to_owned());
        Label::owned(name)
    }
}
