//! Downloads the file of a lookup from a URL, within limits on time and size.

use std::path::Path;

use bytes::Bytes;
use url::Url;

use super::lookup_contents::LookupLimits;
use crate::error::{Error, Result};
use crate::http_client::{Client, Plaintext, Request, Retry, Roots, Settings, StatusCode, redacted};

/// The maximum number of redirects to follow.
const REDIRECTS_MAX: usize = 5;

/// Downloads a whole file. Fails with `Unavailable` if the server returns an error status.
pub(super) async fn fetch(url: &Url, ca_file: Option<&Path>, limits: &LookupLimits) -> Result<Bytes> {
    let roots = Roots::load(ca_file).map_err(|error| error.at("`ca_file`"))?;
    let settings = Settings {
        peer: "the file",
        time_max: limits.time_max,
        body_bytes_max: limits.bytes_max,
        body_bytes_key: Some("ingest.lookup_bytes_max"),
        ca_key: Some("ca_file"),
        redirects_max: REDIRECTS_MAX,
        plaintext: Plaintext::Anywhere,
        retry: Retry::BRIEF,
    };
    let response = Client::new(settings, &roots)?.send(&Request::get(url.clone())).await?;
    if response.status != StatusCode::OK {
        return Err(Error::unavailable(format!("{} returned status {}", redacted(url), response.status)));
    }
    Ok(response.body)
}
