//! A lookup's file behind a URL: fetched as a whole, within bounds of time and size.

use bytes::Bytes;
use reqwest::redirect::Policy;
use url::Url;

use super::lookup_file::LookupLimits;
use crate::config::is_loopback;
use crate::error::{Error, Result};

/// How often an answer may point elsewhere.
const REDIRECTS_MAX: usize = 5;

/// Fetches a file.
pub(super) async fn fetch(url: &Url, bounds: &LookupLimits) -> Result<Bytes> {
    let client = reqwest::Client::builder().redirect(Policy::limited(REDIRECTS_MAX)).timeout(bounds.time_max);
    let client = if is_loopback(url) { client.no_proxy() } else { client };
    let client = client.build().map_err(|error| Error::internal("cannot make an HTTP client").with_source(error))?;
    let broken = |error: reqwest::Error| Error::unavailable(format!("{url} cannot be fetched")).with_source(error);
    let mut response = client.get(url.clone()).send().await.map_err(broken)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(Error::unavailable(format!("{url} answers {}", response.status())));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > bounds.bytes_max {
            return Err(bounds.too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}
