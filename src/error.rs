//! The one error of the house: what to do about it, what to say, and what caused it.
//!
//! In: any fault met by any module. Out: an [`Error`] whose [`Kind`] tells the caller what to do, not who complained.
//! Doors turn kinds into HTTP and gRPC codes in two exhaustive tables (`http/error.rs`, `flight/error.rs`), nowhere else.
//!
//! **Invariant:** a message never holds another tenant's data: what was read from the lake is a source, never a message.
//! Messages are lower case, without a full stop; they name the thing and the way out.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The request is wrong: change it.
    Invalid,
    /// There is no valid token: get one.
    Unauthenticated,
    /// The token does not allow it: ask for more.
    Forbidden,
    /// No such thing that this caller may see.
    NotFound,
    /// The thing exists already, or changed meanwhile.
    Conflict,
    /// A named limit was met: wait, or ask for less.
    Limited,
    /// The caller, or the server on its behalf, stopped it.
    Cancelled,
    /// Something we need is away: retry.
    Unavailable,
    /// This server does not do that, and will not by retrying.
    Unsupported,
    /// Our bug. The client sees an id, the log the cause.
    Internal,
}

/// A fault: kind, message, and the source that caused it.
pub struct Error {
    kind: Kind,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {$(
        #[doc = concat!("An error of kind [`Kind::", stringify!($kind), "`].")]
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(Kind::$kind, message)
        }
    )*};
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry_after: None, source: None }
    }

    constructors! {
        invalid => Invalid, unauthenticated => Unauthenticated, forbidden => Forbidden, not_found => NotFound,
        conflict => Conflict, limited => Limited, cancelled => Cancelled, unavailable => Unavailable,
        unsupported => Unsupported, internal => Internal,
    }

    /// The same error, with what caused it. The cause is logged, never shown.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, saying when a retry is worth it.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same error with `place` in front of its message.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = Cow::Owned(format!("{place}: {}", self.message));
        self
    }

    /// What the caller should do.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What to tell the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// When a retry is worth it, if that is known.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, "; caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

/// Names the closest of `known` to `given`: the tail of an "unknown x" message, or nothing when none is close.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .min()
        .map(|(_, name)| format!(", did you mean `{name}`?"))
        .unwrap_or_default()
}
