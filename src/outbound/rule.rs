//! The rule for allowed URLs, for the first request and for redirects.
//!
//! In: URLs. Out: the URL to request, or why it is not allowed. Names are not resolved: a host counts as this machine only if
//! its name or address is a loopback one.

use url::{Origin, Url};

use crate::config::{has_credentials, is_https_or_loopback, is_loopback};
use crate::error::{Error, Result};

/// Where requests may go without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plaintext {
    /// To this machine only.
    Loopback,
    /// To any host: the operator chose it by configuring the URL.
    Anywhere,
}

impl Plaintext {
    /// The reason why a request must not go to this URL, or `None` if it may.
    fn refusal(self, url: &Url) -> Option<&'static str> {
        match url.scheme() {
            "http" | "https" if is_https_or_loopback(url) || self == Self::Anywhere => None,
            "http" => Some("must be https, because plain http is allowed only to this machine"),
            _ => Some("must begin with https://"),
        }
    }
}

/// Parses a configured URL. `Invalid` if it is not a URL, or not allowed.
pub(crate) fn parse_url(text: &str, plaintext: Plaintext) -> Result<Url> {
    // The error does not quote the text: it may contain a password.
    let url = Url::parse(text).map_err(|error| Error::invalid(format!("the URL is not valid: {error}")))?;
    check(&url, plaintext)?;
    Ok(url)
}

/// `Invalid` if a request must not go to this URL.
pub(super) fn check(url: &Url, plaintext: Plaintext) -> Result<()> {
    match plaintext.refusal(url) {
        Some(why) => Err(Error::invalid(format!("`{}` {why}", redacted(url)))),
        None => Ok(()),
    }
}

/// The target of a redirect from `from`, or why it is not followed.
pub(super) fn target(from: &Url, location: &str, plaintext: Plaintext) -> Result<Url, String> {
    let to = from.join(location).map_err(|error| format!("to a URL that is not valid: {error}"))?;
    let why = if plaintext.refusal(&to).is_some() || (from.scheme() == "https" && !is_https_or_loopback(&to)) {
        "which is not https"
    } else if is_loopback(&to) && !is_loopback(from) {
        "which is this machine: a redirect from another machine must not lead here"
    } else if !is_same_origin(from, &to) && has_credentials(&to) {
        "which holds credentials"
    } else {
        return Ok(to);
    };
    Err(format!("to {}, {why}", redacted(&to)))
}

/// Whether scheme, host and port are the same.
pub(super) fn is_same_origin(one: &Url, other: &Url) -> bool {
    matches!(one.origin(), Origin::Tuple(..)) && one.origin() == other.origin()
}

/// A URL for errors and logs: without user, password, query and fragment, which may be secret.
pub(crate) fn redacted(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_fragment(None);
    if shown.query().is_some() {
        shown.set_query(Some("(redacted)"));
    }
    // Setting credentials fails only for a URL without a host, which has none.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}
