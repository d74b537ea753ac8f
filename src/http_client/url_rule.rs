//! Checks whether a request may be sent to a URL, which can also be the target of a redirect.
//!
//! The check does not resolve host names. Only `localhost` and literal loopback addresses are treated as this machine.

use url::{Origin, Url};

use crate::config::{has_credentials, is_https_or_loopback, is_loopback};
use crate::error::{Error, Result};

/// The hosts to which requests may be sent without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plaintext {
    /// Only loopback addresses.
    Loopback,
    /// Any host, because the operator has explicitly configured an `http` URL.
    Anywhere,
}

impl Plaintext {
    /// Returns the reason why a request must not be sent to this URL, or `None` if the request is allowed.
    fn refusal(self, url: &Url) -> Option<&'static str> {
        match url.scheme() {
            "http" | "https" if is_https_or_loopback(url) || self == Self::Anywhere => None,
            "http" => Some("must be https, because plain http is allowed only to this machine"),
            _ => Some("must begin with https://"),
        }
    }
}

/// Parses a configured URL. Fails with `Invalid` if the URL is malformed or not allowed.
pub(crate) fn parse_url(text: &str, plaintext: Plaintext) -> Result<Url> {
    // The error does not quote the URL, because the URL may contain a password.
    let url = Url::parse(text).map_err(|error| Error::invalid(format!("the URL is not valid: {error}")))?;
    check(&url, plaintext)?;
    Ok(url)
}

/// Fails with `Invalid` if a request must not be sent to this URL.
pub(super) fn check(url: &Url, plaintext: Plaintext) -> Result<()> {
    match plaintext.refusal(url) {
        Some(why) => Err(Error::invalid(format!("`{}` {why}", redacted(url)))),
        None => Ok(()),
    }
}

/// Returns the target of a redirect from `from`, or the reason why the client does not follow the redirect.
pub(super) fn target(from: &Url, location: &str, plaintext: Plaintext) -> Result<Url, String> {
    let to = from.join(location).map_err(|error| format!("to a URL that is not valid: {error}"))?;
    let why = if plaintext.refusal(&to).is_some() || (from.scheme() == "https" && !is_https_or_loopback(&to)) {
        "which is not https"
    } else if is_loopback(&to) && !is_loopback(from) {
        "which is this machine; a redirect from another machine must not lead to this machine"
    } else if !is_same_origin(from, &to) && has_credentials(&to) {
        "which contains credentials"
    } else {
        return Ok(to);
    };
    Err(format!("to {}, {why}", redacted(&to)))
}

/// Returns true if the URLs have the same scheme, host and port.
pub(super) fn is_same_origin(one: &Url, other: &Url) -> bool {
    matches!(one.origin(), Origin::Tuple(..)) && one.origin() == other.origin()
}

/// Formats a URL for errors and logs, without the user, password, query and fragment, which may be secret.
pub(crate) fn redacted(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_fragment(None);
    if shown.query().is_some() {
        shown.set_query(Some("(redacted)"));
    }
    // Removing the credentials fails only for a URL without a host, which cannot contain credentials.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}
