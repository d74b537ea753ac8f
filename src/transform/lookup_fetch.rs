//! Downloads the whole file of a lookup from a URL, within limits on time and size.

use std::path::Path;

use bytes::Bytes;
use url::Url;

use super::lookup_file::LookupLimits;
use crate::error::{Error, Result};
use crate::outbound::{Client, Plaintext, Request, Retry, Roots, Settings, StatusCode, redacted};

/// The maximum number of redirects.
const REDIRECTS_MAX: usize = 5;

/// Downloads a file.
pub(super) async fn fetch(url: &Url, ca_file: Option<&Path>, bounds: &LookupLimits) -> Result<Bytes> {
    let roots = Roots::load(ca_file).map_err(|error| error.at("`ca_file`"))?;
    let settings = Settings {
        peer: "the file",
        time_max: bounds.time_max,
        body_bytes_max: bounds.bytes_max,
        body_bytes_key: Some("ingest.lookup_bytes_max"),
        ca_key: Some("ca_file"),
        redirects_max: REDIRECTS_MAX,
        plaintext: Plaintext::Anywhere,
        retry: Retry::BRIEF,
    };
    let answer = Client::new(settings, &roots)?.send(&Request::get(url.clone())).await?;
    if answer.status != StatusCode::OK {
        return Err(Error::unavailable(format!("{} answered with status {}", redacted(url), answer.status)));
    }
    Ok(answer.body)
}
