//! Reads the content type and the encoding of a body from the request headers.
//!
//! If the server does not accept the type or the encoding, it responds with status 415 and lists the accepted values.
//! The format is never guessed from the content of the body.

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};

use super::error::ErrorBody;
use crate::contract::Format;

/// The accepted content types.
const TYPES: [(&str, Format); 4] = [
    ("application/json", Format::Json),
    ("application/x-ndjson", Format::Json),
    ("application/x-protobuf", Format::Protobuf),
    ("application/vnd.apache.arrow.stream", Format::ArrowIpc),
];
/// The accepted content encodings.
const ENCODINGS: [(&str, ContentEncoding); 3] =
    [("identity", ContentEncoding::Identity), ("gzip", ContentEncoding::Gzip), ("zstd", ContentEncoding::Zstd)];

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentEncoding {
    /// Not compressed.
    Identity,
    /// gzip (RFC 1952) with any number of members.
    Gzip,
    /// Zstandard (RFC 8878) with any number of frames.
    Zstd,
}

/// Returns the format of the decompressed body.
pub(super) fn format(headers: &HeaderMap) -> Result<Format, ErrorBody> {
    let refused = |problem: &str| {
        let accepted = TYPES.map(|(name, _)| format!("`{name}`")).join(", ");
        ErrorBody::wrong_media(format!("the content type {problem}: send one of {accepted}"))
    };
    let value = single_value(headers, &CONTENT_TYPE).map_err(refused)?.ok_or_else(|| refused("is missing"))?;
    let mut parts = value.split(';');
    let name = parts.next().unwrap_or_default().trim();
    // JSON is always UTF-8. The server would decode text in another character set incorrectly, so it refuses such text.
    let charset =
        parts.filter_map(|part| part.trim().split_once('=')).find(|(key, _)| key.eq_ignore_ascii_case("charset"));
    if charset.is_some_and(|(_, charset)| !charset.trim_matches('"').eq_ignore_ascii_case("utf-8")) {
        return Err(refused(&format!("`{value}` is not accepted")));
    }
    find(&TYPES, name).ok_or_else(|| refused(&format!("`{name}` is not accepted")))
}

/// Returns the compression of the body.
pub(super) fn encoding(headers: &HeaderMap) -> Result<ContentEncoding, ErrorBody> {
    let refused = |problem: &str| {
        let accepted = ENCODINGS.map(|(name, _)| format!("`{name}`")).join(", ");
        ErrorBody::wrong_media(format!("the content encoding {problem}: send one of {accepted}"))
    };
    match single_value(headers, &CONTENT_ENCODING).map_err(refused)? {
        Some(name) => find(&ENCODINGS, name.trim()).ok_or_else(|| refused(&format!("`{name}` is not accepted"))),
        None => Ok(ContentEncoding::Identity),
    }
}

/// Returns the value of a header that may appear only once. The error completes a sentence that begins with the
/// header's name.
fn single_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, &'static str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| "is not ASCII text"),
        (Some(_), Some(_)) => Err("appears more than once"),
    }
}

fn find<T: Copy>(known: &[(&str, T)], name: &str) -> Option<T> {
    known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, found)| *found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn content_types_are_parsed() {
        let cases: [(&[&'static str], Option<Format>); 10] = [
            (&["application/json"], Some(Format::Json)),
            (&["Application/JSON; charset=UTF-8"], Some(Format::Json)),
            (&["application/x-ndjson"], Some(Format::Json)),
            (&["application/x-protobuf"], Some(Format::Protobuf)),
            (&["application/vnd.apache.arrow.stream"], Some(Format::ArrowIpc)),
            (&["application/json; charset=latin1"], None),
            (&["text/plain"], None),
            (&["application/json", "application/x-protobuf"], None),
            (&[""], None),
            (&[], None),
        ];
        for (values, expected) in cases {
            let mut all = HeaderMap::new();
            values.iter().for_each(|value| {
                all.append(CONTENT_TYPE, HeaderValue::from_static(value));
            });
            assert_eq!(format(&all).ok(), expected, "{values:?}");
        }
    }

    #[test]
    fn content_encodings_are_parsed() {
        let cases = [
            ("identity", Some(ContentEncoding::Identity)),
            ("GZIP", Some(ContentEncoding::Gzip)),
            ("zstd", Some(ContentEncoding::Zstd)),
            ("br", None),
            ("gzip, zstd", None),
            ("", None),
        ];
        for (value, expected) in cases {
            assert_eq!(encoding(&headers(CONTENT_ENCODING, &[value])).ok(), expected, "{value}");
        }
        assert_eq!(encoding(&HeaderMap::new()).ok(), Some(ContentEncoding::Identity));
    }
}
