//! The command `glasshouse health` checks whether a server can serve requests. Use it in containers and scripts.
//!
//! The command needs the URL of the HTTP endpoint but no token. It prints one line. Its exit code is 0 if the server is
//! ready, and 5 if the server is not ready or does not respond.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde::Deserialize;

use super::client::{self, RETRY};
use crate::error::{Error, Result};
use crate::http_client::{Request, Retry};

/// The time limit for the response. The server's own time limit for `/readyz` is shorter.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Check whether a server can serve requests.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example, as the health check of a container:
  HEALTHCHECK CMD [\"glasshouse\", \"health\"]

Exit codes: 0 the server can serve requests; 5 it cannot, or it does not respond.")]
pub(crate) struct Args {
    /// The server's HTTP endpoint
    #[arg(long, env = "GLASSHOUSE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Check only that the process responds, not whether it can serve requests
    #[arg(long)]
    live: bool,
}

/// The response of `/readyz`.
#[derive(Debug, Default, Deserialize)]
struct Readiness {
    #[serde(default)]
    reasons: Vec<String>,
}

/// Sends one request, without retries.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (path, outcome) =
        if args.live { ("healthz", "the server responds") } else { ("readyz", "the server is ready") };
    super::block_on(check(&args.url, path))?;
    super::write_stdout(outcome);
    Ok(ExitCode::SUCCESS)
}

async fn check(url: &str, path: &str) -> Result<()> {
    let url = client::address(url, &[path])?;
    let client = client::client_within(TIME_MAX, Retry { attempts_max: 1, ..RETRY })?;
    let response = client.send(&Request::get(url.clone())).await?;
    let status = response.status;
    if status.is_success() {
        return Ok(());
    }
    let reasons = serde_json::from_slice::<Readiness>(&response.body).unwrap_or_default().reasons;
    let reasons = if reasons.is_empty() { format!("{url} returned {status}") } else { reasons.join("; ") };
    Err(Error::unavailable(format!("the server is not ready: {reasons}")))
}
