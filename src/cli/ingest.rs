//! `glasshouse ingest`: send a file or standard input to a running server.
//!
//! In: NDJSON, JSON, length-delimited protobuf, Arrow IPC or Parquet. Out: requests of bounded size, a progress bar, and
//! the sum of the receipts. A request refused because of load is retried after the time that the server names; ids make
//! that safe.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args as ClapArgs, ValueEnum};
use futures::StreamExt;
use futures::stream;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use url::Url;

use super::client;
use super::upload_chunks::{Chunk, Chunks};
use crate::error::{Error, Result};
use crate::outbound::{Client, Request, Retry};

/// Rejected events that are shown.
const REJECTS_SHOWN: usize = 10;

/// Send events to a running server.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse ingest --table call_events --token \"$TOKEN\" events.ndjson
  zcat events.ndjson.gz | glasshouse ingest --table call_events --format ndjson -
  glasshouse ingest --table flights flights.parquet

Exit codes: 0 all events are stored; 1 some events were rejected (they are in the table's quarantine); 4 refused; 5 not reachable.")]
pub(crate) struct Args {
    /// The table
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
    /// The size of one request, in bytes
    #[arg(long, default_value_t = 4 << 20, value_name = "BYTES")]
    request_bytes: usize,
    /// The number of concurrent requests
    #[arg(long, default_value_t = 4, value_name = "N")]
    requests: usize,
    /// The file, or - for standard input
    file: PathBuf,
}

/// The input format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// One JSON object per line
    Ndjson,
    /// One JSON document: an object or an array of them
    Json,
    /// Length-delimited protobuf messages
    Protobuf,
    /// An Arrow IPC stream
    Arrow,
    /// A Parquet file
    Parquet,
}

/// A receipt, or the sum of several.
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
    let format = args.format.or_else(|| told_by_name(&args.file)).ok_or_else(|| {
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
    super::say(&format!("{} accepted, {} duplicate, {} rejected", total.accepted, total.duplicate, total.rejected));
    if total.conflict > 0 {
        super::say(&format!("  {} of the duplicates differ from the stored event", total.conflict));
    }
    for note in &total.rejects {
        super::say(&format!("  event {} of its request: {}: {}", note.index, note.reason, note.detail));
    }
    if total.rejected > total.rejects.len() as u64 {
        super::say(&format!("  … see `select * from {}_quarantine`", args.table));
    }
    Ok(if total.rejected == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends chunks, a few at a time, and adds up their receipts.
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
        let room = REJECTS_SHOWN - total.rejects.len();
        total.rejects.extend(receipt.rejects.into_iter().take(room));
        progress.inc(bytes as u64);
        progress.set_message(format!("{} stored", total.accepted + total.duplicate));
    }
    Ok(total)
}

/// Sends one chunk, and retries while the server refuses it because of load or is unreachable.
async fn send(client: &Client, url: &Url, token: &str, chunk: Chunk) -> Result<ReceiptJson> {
    // An event that is sent twice is stored once, by its id.
    let request = Request::post(url.clone(), chunk.content_type, chunk.body).bearer(token).idempotent();
    let answer = client::send(client, &request).await?;
    serde_json::from_slice(&answer.body).map_err(client::unreadable)
}

fn told_by_name(file: &Path) -> Option<InputFormat> {
    match file.extension()?.to_str()? {
        "ndjson" | "jsonl" => Some(InputFormat::Ndjson),
        "json" => Some(InputFormat::Json),
        "pb" | "protobuf" => Some(InputFormat::Protobuf),
        "arrow" | "arrows" => Some(InputFormat::Arrow),
        "parquet" => Some(InputFormat::Parquet),
        _ => None,
    }
}

/// Opens the input; its size is known for files only.
fn open(file: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let cannot = |e: std::io::Error| Error::invalid(format!("cannot read `{}`: {e}", file.display())).with_source(e);
    let input = std::fs::File::open(file).map_err(cannot)?;
    let size = input.metadata().map_err(cannot)?.len();
    Ok((Box::new(input), Some(size)))
}

/// A bar if the size is known, otherwise a spinner; neither if standard error is not a terminal.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
