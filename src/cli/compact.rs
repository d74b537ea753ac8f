//! The command `glasshouse compact` merges the files of tables, with or without a running server.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args as ClapArgs;
use tokio_util::sync::CancellationToken;

use super::serve::stop_on_signal;
use super::{write_stderr, write_stdout};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::{Error, Result, did_you_mean};
use crate::lake::{Store, Table, Tables, day_text};
use crate::maintenance::{CompactProgress, Compacted, Compaction, Extent};
use crate::server;

/// Merge the small files of tables into larger ones.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
A server merges files by itself. Use this command after an import, if a server's maintenance has fallen behind
or is disabled, or if there is no server. It may run beside servers: they agree on who merges which files, and
the removed files stay in the store for queries that are still running.

Examples:
  glasshouse compact                         merge everything that can be merged, in all tables
  glasshouse compact call_events --dry-run   show what would be merged
  glasshouse compact --due                   merge only what a server would merge now

Exit codes: 0 success; 1 some files could not be merged; 3 invalid configuration.")]
pub(crate) struct Args {
    /// The tables to merge, including quarantines (NAME_quarantine) [default: all tables]
    tables: Vec<String>,
    /// Merge only what a server would merge now, and wait for more files otherwise
    #[arg(long)]
    due: bool,
    /// Also merge the files of today completely, although more events of today may arrive
    #[arg(long, conflicts_with = "due")]
    today: bool,
    /// Show what would be merged first, and merge nothing
    #[arg(long)]
    dry_run: bool,
}

/// Opens the tables, merges their files, and prints one line per table.
pub(crate) fn run(args: &Args, config: &Config) -> Result<ExitCode> {
    if config.lake.url.starts_with("memory:") {
        return Err(Error::invalid(
            "lake.url is memory:///, which no other process can read: compact a lake in a folder or a bucket",
        ));
    }
    super::block_on(async {
        let tables = open(args, config).await?;
        let extent = match (args.due, args.today) {
            (true, _) => Extent::Due,
            (_, true) => Extent::CloseToday,
            _ => Extent::Everything,
        };
        let Some(compaction) = Compaction::new(&tables, extent, &config.maintenance, &config.lake)? else {
            return Err(Error::invalid("the configuration declares no table: add [tables.NAME]"));
        };
        let stop = stop_on_signal()?;
        let mut is_complete = true;
        for (name, table) in &tables {
            if args.dry_run {
                preview(name, table, &compaction);
            } else {
                is_complete &= compact(name, table, &compaction, &stop).await?;
            }
            if stop.is_cancelled() {
                return Err(Error::cancelled("stopped; all finished merges are part of the tables"));
            }
        }
        Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Opens the selected tables.
async fn open(args: &Args, config: &Config) -> Result<Tables> {
    let contracts = server::contracts(config)?;
    let known: Vec<&str> = contracts.iter().map(|contract| contract.name.as_str()).collect();
    if let Some(unknown) = args.tables.iter().find(|name| !known.contains(&name.as_str())) {
        let hint = did_you_mean(unknown, known.iter().copied());
        return Err(Error::not_found(format!("there is no table `{unknown}`{hint}")));
    }
    let store = Store::open(&config.lake)?.with_clock(Clock::System);
    let selected = |name: &String| args.tables.is_empty() || args.tables.contains(name);
    let contracts = contracts.into_iter().filter(|contract| selected(&contract.name)).collect();
    server::open_tables(&store, contracts, config).await
}

fn preview(name: &str, table: &Arc<Table>, compaction: &Compaction) {
    let files = table.snapshot().len();
    let due = compaction.due(table);
    write_stdout(&format!("{name}: {files} files, {} merges are due first", due.len()));
    for unit in due {
        let bytes: u64 = unit.inputs.iter().map(|file| file.size).sum();
        write_stdout(&format!(
            "  {}  {} files, {}, to level {}",
            day_text(unit.day).unwrap_or_default(),
            unit.inputs.len(),
            size(bytes),
            unit.level
        ));
    }
}

/// Merges one table. Returns false if some files could not be merged.
async fn compact(name: &str, table: &Arc<Table>, compaction: &Compaction, stop: &CancellationToken) -> Result<bool> {
    let totals = |table: &Table| {
        let snapshot = table.snapshot();
        (snapshot.len(), snapshot.files().map(|file| file.size).sum::<u64>())
    };
    let (files_before, bytes_before) = totals(table);
    let report = |CompactProgress { unit, files, units_due }: CompactProgress<'_>| {
        let (day, inputs, level) = (day_text(unit.day).unwrap_or_default(), unit.inputs.len(), unit.level);
        write_stderr(&format!(
            "{name}  {day}  merged {inputs} files to level {level}; {files} files, {units_due} merges left"
        ));
    };
    let Compacted { units, units_left, state } = compaction.compact(table, stop, report).await?;
    let (files, bytes) = totals(table);
    write_stdout(&format!(
        "{name}: {files_before} files ({}) became {files} files ({}) in {units} merges",
        size(bytes_before),
        size(bytes)
    ));
    for path in &state.left_alone {
        write_stderr(&format!("{name}: left alone {path}: see the message above"));
    }
    if let Some(reason) = &state.suspended {
        return Err(Error::internal(format!("{name}: merges were given up: {reason}")));
    }
    if units_left > 0 && !stop.is_cancelled() {
        write_stderr(&format!("{name}: {units_left} merges are left: another process is doing them, or they failed"));
    }
    Ok(units_left == 0 && state.left_alone.is_empty())
}

/// Formats a size with one decimal.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
