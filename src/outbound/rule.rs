//! Which URLs a request may go to, at first and by a redirect.
//!
//! In: URLs. Out: the URL to ask, or why it is not allowed. Names are not looked up: a host is this machine only if its name
//! or address says so.

use url::{Origin, Url};

use crate::config::{has_credentials, is_https_or_loopback, is_loopback};
use crate::error::{Error, Result};

/// Where requests may go without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plaintext {
    /// To this machine.
    Loopback,
    /// To any host: whoever configured the URL has chosen it.
    Anywhere,
}

impl Plaintext {
    /// Why a request must not go to this URL, if so.
    fn refusal(self, url: &Url) -> Option<&'static str> {
        match url.scheme() {
            "http" | "https" if is_https_or_loopback(url) || self == Self::Anywhere => None,
            "http" => Some("must be https, since plain http is for this machine only"),
            _ => Some("must begin with https://"),
        }
    }
}

/// Parses a configured URL. `Invalid` if it is not a URL, or not allowed.
pub(crate) fn parse_url(text: &str, plaintext: Plaintext) -> Result<Url> {
    // The text is not quoted: it may hold a password.
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
        "which is this machine: another must not choose what is read from here"
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

/// A URL as errors and logs show it: without what may be secret, which is user, password, query and fragment.
pub(crate) fn redacted(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_fragment(None);
    if shown.query().is_some() {
        shown.set_query(Some("(redacted)"));
    }
    // A URL without a host takes no credentials, and so has none.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}
