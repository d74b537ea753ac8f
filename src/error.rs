//! The error type of this crate. An error has a kind, a message, and an underlying cause.
//!
//! The [`Kind`] determines how the caller should react to the error. It does not identify the module that failed. Only
//! `http/error.rs` and `flight/error.rs` translate kinds into HTTP and gRPC status codes.
//!
//! Messages are in lower case and have no final full stop. A message states the problem, the offending value and the
//! fix.
//!
//! **Invariant:** a message never contains another tenant's data. Data that was read from the lake may appear in the
//! underlying cause, but never in the message.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error, which determines how the caller should react to the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The request is invalid. The caller should correct the request.
    Invalid,
    /// The token is missing or invalid. The caller should get a valid token.
    Unauthenticated,
    /// The token does not permit the request. The caller needs additional permissions.
    Forbidden,
    /// The object does not exist, or the caller may not see it.
    NotFound,
    /// The object already exists, or another request changed it at the same time.
    Conflict,
    /// A limit was exceeded. The caller should retry later or make a smaller request.
    Limited,
    /// The caller, or the server on its behalf, cancelled the request.
    Cancelled,
    /// The server or a service that it depends on is unavailable. The caller should retry the request.
    Unavailable,
    /// The server does not support the request, so a retry would also fail.
    Unsupported,
    /// The server has a bug. The client gets an id with which an operator can find the cause in the log.
    Internal,
}

/// An error with its kind, its message and the underlying cause.
pub struct Error {
    kind: Kind,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {$(
        #[doc = concat!("Creates an error of kind [`Kind::", stringify!($kind), "`].")]
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(Kind::$kind, message)
        }
    )*};
}

impl Error {
    /// Creates an error of `kind` with `message`.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry_after: None, source: None }
    }

    constructors! {
        invalid => Invalid, unauthenticated => Unauthenticated, forbidden => Forbidden, not_found => NotFound,
        conflict => Conflict, limited => Limited, cancelled => Cancelled, unavailable => Unavailable,
        unsupported => Unsupported, internal => Internal,
    }

    /// Attaches the underlying cause. The cause is logged but never sent to the client.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets how long the caller should wait before it retries.
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

    /// Returns the kind of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the message for the caller.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns how long the caller should wait before it retries, if this is known.
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

/// Returns `, did you mean …?` with the name in `known` that is closest to `given`. Returns an empty string if no name
/// is close. Callers append the result to an error about an unknown name.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .min()
        .map(|(_, name)| format!(", did you mean `{name}`?"))
        .unwrap_or_default()
}
