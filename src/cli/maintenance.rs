//! The command `glasshouse maintenance` shows the files of each table and the state of merges of a running server, and
//! pauses and resumes its merges.

use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{ServerClient, unreadable};
use super::{write_stderr, write_stdout};
use crate::error::Result;

/// Show the files of each table, and pause or resume merges.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse maintenance status
  glasshouse maintenance pause      stop merging files on this server, until it is resumed or restarted
  glasshouse maintenance resume

Requires an operator's token with the scope `admin`.

Exit codes: 0 success; 1 failure; 4 refused; 5 not reachable.")]
pub(crate) struct Args {
    #[command(flatten)]
    client: ServerClient,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the files of each table by level, and the merges that are due
    Status,
    /// Stop merging files on this server. Merges that are in progress go on
    Pause,
    /// Merge files again
    Resume,
}

#[derive(Debug, Deserialize)]
struct MaintenanceJson {
    state: String,
    tables: Vec<TableLine>,
}

#[derive(Debug, Deserialize)]
struct TableLine {
    table: String,
    rows: u64,
    levels: Vec<Level>,
    unmerged_files_of_day_max: u64,
    merges_due: u64,
    files_left_alone: Vec<String>,
    suspended: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Level {
    files: u64,
    bytes: u64,
}

/// Sends the request of one subcommand and prints the response.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    args.client.check()?;
    let response = super::block_on(async {
        match &args.command {
            Command::Status => args.client.get(&["v1", "maintenance"], &[]).await,
            Command::Pause => args.client.post(&["v1", "maintenance", "pause"], &json!({})).await,
            Command::Resume => args.client.post(&["v1", "maintenance", "resume"], &json!({})).await,
        }
    })?;
    if args.client.json {
        write_stdout(&response.to_string());
    } else {
        show(response)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the response as a table.
pub(super) fn show(response: Value) -> Result<()> {
    let MaintenanceJson { state, tables } = serde_json::from_value(response).map_err(unreadable)?;
    write_stdout(&format!("merges are {state}"));
    let width = tables.iter().map(|line| line.table.len()).max().unwrap_or(0).max("table".len());
    write_stdout(&format!(
        "{:width$}  {:>14}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>10}  {:>6}",
        "table", "rows", "MB", "level 0", "level 1", "level 2", "level 3", "of one day", "due"
    ));
    for line in &tables {
        let files = |level: usize| line.levels.get(level).map_or(0, |level| level.files);
        let bytes: u64 = line.levels.iter().map(|level| level.bytes).sum();
        write_stdout(&format!(
            "{:width$}  {:>14}  {:>9.1}  {:>8}  {:>8}  {:>8}  {:>8}  {:>10}  {:>6}",
            line.table,
            line.rows,
            bytes as f64 / 1e6,
            files(0),
            files(1),
            files(2),
            files(3),
            line.unmerged_files_of_day_max,
            line.merges_due
        ));
    }
    for TableLine { table, files_left_alone, suspended, .. } in &tables {
        if let Some(reason) = suspended {
            write_stderr(&format!("{table}: merges are suspended until the server is restarted: {reason}"));
        }
        for path in files_left_alone {
            write_stderr(&format!("{table}: cannot be merged: {path}; the server's log has the reason"));
        }
    }
    Ok(())
}
