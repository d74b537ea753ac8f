//! The error type of this crate: a kind, a message, and the underlying cause.
//!
//! In: a failure in any module. Out: an [`Error`] whose [`Kind`] says what the caller should do, not which module
//! failed. The endpoints map kinds to HTTP and gRPC codes in two exhaustive tables (`http/error.rs`,
//! `flight/error.rs`), nowhere else.
//!
//! **Invariant:** a message never contains another tenant's data: what was read from the lake goes into the source,
//! never into the message. Messages are lower case, without a full stop; they state the problem, the offending value
//! and the fix.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The category of an error: what the caller should do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The request is invalid: change it.
    Invalid,
    /// The token is missing or invalid: get a valid one.
    Unauthenticated,
    /// The token does not permit the request: ask for more rights.
    Forbidden,
    /// The object does not exist, or the caller may not see it.
    NotFound,
    /// The object already exists, or was changed concurrently.
    Conflict,
    /// A named limit was exceeded: wait, or ask for less.
    Limited,
    /// The caller, or the server on its behalf, cancelled the request.
    Cancelled,
    /// A dependency is unavailable: retry.
    Unavailable,
    /// The server does not support the request: a retry does not help.
    Unsupported,
    /// A bug in the server. The client sees an id; the log has the cause.
    Internal,
}

/// An error: its kind, its message, and the underlying cause.
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
    /// An error of `kind` with `message`.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry_after: None, source: None }
    }

    constructors! {
        invalid => Invalid, unauthenticated => Unauthenticated, forbidden => Forbidden, not_found => NotFound,
        conflict => Conflict, limited => Limited, cancelled => Cancelled, unavailable => Unavailable,
        unsupported => Unsupported, internal => Internal,
    }

    /// Attaches the underlying cause, which is logged but never shown to the client.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets the time after which a retry may succeed.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Prefixes the message with `context` and a colon.
    #[must_use]
    pub fn at(mut self, context: impl fmt::Display) -> Self {
        self.message = Cow::Owned(format!("{context}: {}", self.message));
        self
    }

    /// The category of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The time after which a retry may succeed, if known.
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

/// Suggests the name in `known` closest to `given`, as the end of an "unknown x" message. Empty if no name is close.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .min()
        .map(|(_, name)| format!(", did you mean `{name}`?"))
        .unwrap_or_default()
}
