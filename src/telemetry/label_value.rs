//! Label values: escaped, and bounded in number.
//!
//! The `prometheus-client` encoder does not escape label values, so that a quotation mark in a tenant's name would end
//! the value and the rest of the name would be parsed as further labels. [`Label`] escapes them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// A label value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Label(Cow<'static, str>);

/// `N` label names and values.
pub(super) type Labels<const N: usize> = [(&'static str, Label); N];

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl Label {
    /// A label value known only at run time. The caller bounds the number of distinct values.
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

/// Bounds the number of label values: the first `max` names keep their own, all later ones share [`LabelNames::OTHER`].
#[derive(Debug)]
pub(super) struct LabelNames {
    seen: Mutex<HashSet<String>>,
    max: usize,
}

impl LabelNames {
    /// The label of all names beyond the limit.
    pub(super) const OTHER: &'static str = "other";

    /// A set with at most `max` names.
    pub(super) fn new(max: usize) -> Self {
        Self { seen: Mutex::default(), max }
    }

    /// The label of `name`.
    pub(super) fn label(&self, name: &str) -> Label {
        // A poisoned set is still consistent: no operation leaves it half-changed.
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
