//! Checks whether the host of a URL is a loopback address, whether the URL may be used without TLS, and whether it
//! contains credentials.
//!
//! Host names are not resolved, because a later lookup of the same name may return a different address.

use url::{Host, Url};

/// Returns true if the URL's host is `localhost` or a loopback address.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Returns true for an `https` URL, and for an `http` URL whose host is a loopback address. In both cases, no third
/// party can read or change the traffic.
pub fn is_https_or_loopback(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

/// Returns true if the URL contains a user or a password. Configured URLs must not contain credentials, because URLs
/// are shown in logs and by `config show`.
pub fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_loopback() {
        let cases = [
            ("http://localhost:1/a", true),
            ("http://LOCALHOST/", true),
            ("http://127.0.0.1/", true),
            ("http://127.9.9.9:80/", true),
            ("http://2130706433/", true),
            ("http://[::1]:8080/", true),
            ("http://localhost.example/", false),
            ("http://127.0.0.1.example/", false),
            ("http://localhost@example.com/", false),
            ("http://0.0.0.0/", false),
            ("http://10.0.0.1/", false),
            ("http://[::2]/", false),
            ("file:///tmp/a", false),
        ];
        for (url, expected) in cases {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn http_is_allowed_only_to_loopback() {
        let cases = [
            ("https://example.com/", true),
            ("https://localhost/", true),
            ("http://localhost/", true),
            ("http://[::1]/", true),
            ("http://example.com/", false),
            ("http://10.0.0.1/", false),
            ("ftp://localhost/", false),
            ("file:///tmp/a", false),
        ];
        for (url, expected) in cases {
            assert_eq!(is_https_or_loopback(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }
}
