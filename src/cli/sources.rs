//! The command `glasshouse sources` shows, pauses and resumes the sources of a running server.

use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{ServerClient, unreadable};
use super::{write_stderr, write_stdout};
use crate::error::Result;

/// Show sources, pause them, or resume them.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse sources list
  glasshouse sources pause voice      stop storing messages of the source, on all servers
  glasshouse sources resume voice     continue at the first message that is not stored

Requires an operator's token with the scope `admin`. A pause is stored in the table and survives restarts.

Exit codes: 0 success; 1 failure; 4 refused; 5 not reachable.")]
pub(crate) struct Args {
    #[command(flatten)]
    client: ServerClient,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show each source with its state, its last error, and its partitions
    List,
    /// Pause a source on all servers of the lake
    Pause {
        /// The name of the source, as in [sources.NAME]
        name: String,
    },
    /// Resume a paused source on all servers of the lake
    Resume {
        /// The name of the source, as in [sources.NAME]
        name: String,
    },
}

#[derive(Debug, Deserialize)]
struct SourcesJson {
    sources: Vec<SourceLine>,
}

#[derive(Debug, Deserialize)]
struct SourceLine {
    name: String,
    table: String,
    state: String,
    paused_since: Option<String>,
    last_error: Option<LastError>,
    partitions: Vec<Partition>,
}

#[derive(Debug, Deserialize)]
struct LastError {
    time: String,
    kind: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct Partition {
    topic: String,
    partition: i32,
    offset: Option<i64>,
    lag: Option<i64>,
    here: bool,
    stopped: bool,
}

/// Sends the request of one subcommand and prints the response.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    args.client.check()?;
    let response = super::block_on(async {
        match &args.command {
            Command::List => args.client.get(&["v1", "sources"], &[]).await,
            Command::Pause { name } => args.client.post(&["v1", "sources", name.as_str(), "pause"], &json!({})).await,
            Command::Resume { name } => args.client.post(&["v1", "sources", name.as_str(), "resume"], &json!({})).await,
        }
    })?;
    if args.client.json {
        write_stdout(&response.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    show(&args.command, response)?;
    Ok(ExitCode::SUCCESS)
}

fn show(command: &Command, response: Value) -> Result<()> {
    if !matches!(command, Command::List) {
        let SourceLine { name, table, state, .. } = serde_json::from_value(response).map_err(unreadable)?;
        write_stdout(&format!("{name}  into {table}  {state}"));
        return Ok(());
    }
    let SourcesJson { sources } = serde_json::from_value(response).map_err(unreadable)?;
    if sources.is_empty() {
        write_stderr("the server has no sources: declare them as [sources.NAME]");
    }
    for SourceLine { name, table, state, paused_since, last_error, partitions } in sources {
        let since = paused_since.map(|time| format!(" since {time}")).unwrap_or_default();
        write_stdout(&format!("{name}  into {table}  {state}{since}"));
        if let Some(LastError { time, kind, message }) = last_error {
            write_stdout(&format!("  last error {time}  {kind}: {message}"));
        }
        for partition in partitions {
            write_stdout(&line(&partition));
        }
    }
    Ok(())
}

/// Formats a partition as one line with its offset and lag. If the partition is stopped, or if this server does not
/// read it, the line contains a note.
fn line(partition: &Partition) -> String {
    let Partition { topic, partition, offset, lag, here, stopped } = partition;
    let number = |number: &Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
    let state = match (here, stopped) {
        (_, true) => "  stopped by a gap or a truncated table",
        (true, false) => "",
        (false, false) => "  not read by this server",
    };
    format!("  {topic}/{partition}  next {}  lag {}{state}", number(offset), number(lag))
}
