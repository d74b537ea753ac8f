//! The command `glasshouse ingest` sends a file or standard input to a running server.
//!
//! The command splits the input into requests of bounded size and prints the sum of their receipts. If the server
//! refuses a request because of load, the command retries the request after the time that the server's response
//! specifies. Retries are safe, because the server stores each event id only once.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;
use futures::StreamExt;
use futures::stream;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use url::Url;

use super::client;
use super::ingest_input::{Chunk, Chunks, InputFormat};
use crate::error::{Error, Result};
use crate::http_client::{Client, Request, Retry};

/// The maximum number of rejected events that the command lists.
const REJECTS_SHOWN: usize = 10;

/// Send events to a running server.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse ingest --table call_events --token \"$TOKEN\" events.ndjson
  zcat events.ndjson.gz | glasshouse ingest --table call_events --format ndjson -
  glasshouse ingest --table flights flights.parquet

Exit codes: 0 all events are stored; 1 some events were rejected and are in the table's quarantine; 4 refused;
5 not reachable.")]
pub(crate) struct Args {
    /// The table that receives the events
    #[arg(long, short)]
    table: String,
    /// The server's HTTP endpoint
    #[arg(long, env = "GLASSHOUSE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A token with the scope `ingest`
    #[arg(long, env = "GLASSHOUSE_TOKEN", hide_env_values = true)]
    token: String,
    /// The input format; inferred from the file name if omitted
    #[arg(long, value_enum)]
    format: Option<InputFormat>,
    /// The approximate size of one request, in bytes
    #[arg(long, default_value_t = 4 << 20, value_name = "BYTES")]
    request_bytes: usize,
    /// The number of concurrent requests
    #[arg(long, default_value_t = 4, value_name = "N")]
    requests: usize,
    /// The file to send; `-` for standard input
    file: PathBuf,
}

/// The receipt of one request, or the sum of several receipts.
#[derive(Debug, Default, Deserialize)]
struct ReceiptJson {
    accepted: u64,
    duplicate: u64,
    #[serde(default)]
    conflict: u64,
    rejected: u64,
    #[serde(default)]
    rejects: Vec<RejectJson>,
}

#[derive(Debug, Deserialize)]
struct RejectJson {
    index: u64,
    reason: String,
    detail: String,
}

/// Sends the whole input and prints the sum of the receipts.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let format = args.format.or_else(|| InputFormat::of(&args.file)).ok_or_else(|| {
        Error::invalid(format!(
            "cannot infer the format of `{}`: use --format ndjson|json|protobuf|arrow|parquet",
            args.file.display()
        ))
    })?;
    let (input, size) = open(&args.file)?;
    let progress = progress_bar(size);
    let chunks = Chunks::new(input, format, args.request_bytes)?;
    let total = super::block_on(send_all(args, chunks, &progress))?;
    progress.finish_and_clear();
    super::write_stdout(&format!(
        "{} accepted, {} duplicate, {} rejected",
        total.accepted, total.duplicate, total.rejected
    ));
    if total.conflict > 0 {
        super::write_stdout(&format!("  {} of the duplicates differ in content from the stored event", total.conflict));
    }
    for reject in &total.rejects {
        super::write_stdout(&format!("  event {} of its request: {}: {}", reject.index, reject.reason, reject.detail));
    }
    if total.rejected > total.rejects.len() as u64 {
        super::write_stdout(&format!(
            "  to see all rejected events, run the query `select * from {}_quarantine`",
            args.table
        ));
    }
    Ok(if total.rejected == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends all chunks of the input, up to `--requests` at the same time, and adds up their receipts.
async fn send_all(args: &Args, chunks: Chunks, progress: &ProgressBar) -> Result<ReceiptJson> {
    let client = client::client(Retry { if_unanswered: true, ..client::RETRY })?;
    let url = client::address(&args.url, &["v1", "tables", &args.table, "events"])?;
    let mut receipts = stream::iter(chunks)
        .map(|chunk| {
            let (client, url) = (&client, &url);
            async move {
                let chunk = chunk?;
                let bytes = chunk.input_bytes;
                Ok::<_, Error>((bytes, send(client, url, &args.token, chunk).await?))
            }
        })
        .buffer_unordered(args.requests.max(1));
    let mut total = ReceiptJson::default();
    while let Some(sent) = receipts.next().await {
        let (bytes, receipt) = sent?;
        total.accepted += receipt.accepted;
        total.duplicate += receipt.duplicate;
        total.conflict += receipt.conflict;
        total.rejected += receipt.rejected;
        let remaining = REJECTS_SHOWN - total.rejects.len();
        total.rejects.extend(receipt.rejects.into_iter().take(remaining));
        progress.inc(bytes as u64);
        progress.set_message(format!("{} stored", total.accepted + total.duplicate));
    }
    Ok(total)
}

/// Sends one chunk as one request. Retries the request if the server refuses it because of load or does not respond.
async fn send(client: &Client, url: &Url, token: &str, chunk: Chunk) -> Result<ReceiptJson> {
    // Sending an event twice is safe, because the server stores each event id only once.
    let request = Request::post(url.clone(), chunk.content_type, chunk.body).bearer(token).idempotent();
    let response = client::send(client, &request).await?;
    serde_json::from_slice(&response.body).map_err(client::unreadable)
}

/// Opens the input. Also returns the size of the input if it is a file.
fn open(file: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let cannot = |e: std::io::Error| Error::invalid(format!("cannot read `{}`: {e}", file.display())).with_source(e);
    let input = std::fs::File::open(file).map_err(cannot)?;
    let size = input.metadata().map_err(cannot)?.len();
    Ok((Box::new(input), Some(size)))
}

/// Creates a progress bar, or a spinner if the size is unknown. Nothing is drawn if standard error is not a terminal.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
