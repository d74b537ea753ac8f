//! Label values: escaped, and bounded in number.
//!
//! The encoder that is used writes label values as they are, so that a quotation mark in a tenant's name would end the
//! value and the rest of the name would be read as further labels. [`Label`] escapes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// One label's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Label(Cow<'static, str>);

/// `N` labels with their names.
pub(super) type Labels<const N: usize> = [(&'static str, Label); N];

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl Label {
    /// A label of a text that is known at run time only; the caller bounds how many there are.
    pub(super) fn owned(text: impl Into<String>) -> Self {
        Self(Cow::Owned(text.into()))
    }
}

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            match part.char_indices().next_back() {
                Some((end, mark @ ('\\' | '"'))) => write!(encoder, "{}\\{mark}", &part[..end])?,
                Some((end, '\n')) => write!(encoder, "{}\\n", &part[..end])?,
                _ => encoder.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// The first `max` names get a label of their own, all later ones share [`LabelNames::OTHER`].
#[derive(Debug)]
pub(super) struct LabelNames {
    seen: Mutex<HashSet<String>>,
    max: usize,
}

impl LabelNames {
    /// The label of all names beyond the bound.
    pub(super) const OTHER: &'static str = "other";

    /// At most `max` names.
    pub(super) fn new(max: usize) -> Self {
        Self { seen: Mutex::default(), max }
    }

    /// The label of `name`.
    pub(super) fn label(&self, name: &str) -> Label {
        // A poisoned set is still a set of names: nothing in here can be half done.
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
