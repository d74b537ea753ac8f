//! The command `glasshouse quarantine` lists, shows, replays and drops the rejected events that a running server has
//! stored.
//!
//! A replay or drop of many entries is sent in several requests. If a request fails, the entries of the earlier
//! requests remain replayed or dropped. Running the command again continues with the remaining entries.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::{ServerClient, unreadable};
use super::{write_stderr, write_stdout};
use crate::clock::Clock;
use crate::config::parse_time;
use crate::error::{Error, Result};
use crate::http_client::Request;

/// The maximum number of events that the command lists after a replay has rejected them again.
const REJECTS_SHOWN: usize = 20;

/// Show rejected events, send them again, or drop them.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse quarantine list                                        count by table, reason and tenant
  glasshouse quarantine list call_events --since 24h                list the newest entries of one table
  glasshouse quarantine show call_events 5f0c…                      show one entry with its payload
  glasshouse quarantine replay call_events --reason unknown_field   replay, for example after adding a column
  glasshouse quarantine replay call_events --id 5f0c… --file fixed.json
  glasshouse quarantine drop call_events --reason malformed --tenant acme --yes

An operator's token requires the scope `admin`. A tenant's token gives access to the tenant's own
entries: the scope `read` allows showing them, and the scope `ingest` allows replaying and dropping
them. A replayed event keeps the time at which it was first received.

Exit codes: 0 success; 1 failure, or some events were rejected again; 4 refused; 5 not reachable.")]
pub(crate) struct Args {
    #[command(flatten)]
    client: ServerClient,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Count entries; with a table, also show its newest entries
    List {
        /// Show the newest entries of this table
        table: Option<String>,
        #[command(flatten)]
        filter: Filter,
        /// The maximum number of entries to show
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: usize,
    },
    /// Show one entry with its payload
    Show {
        /// The table that the event was sent to
        table: String,
        /// The id of the entry
        id: String,
        /// The tenant of the entry, if several tenants have an entry with this id
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Send entries again as they were received, or replace one entry with a corrected event from a file
    Replay {
        /// The table that the events were sent to
        table: String,
        /// The id of an entry; may be given several times
        #[arg(long = "id", value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        filter: Filter,
        /// A file with the corrected event that replaces the received payload; requires exactly one --id
        #[arg(long, value_name = "FILE", conflicts_with_all = ["reason", "since"])]
        file: Option<PathBuf>,
        /// The format of the file; inferred from the file name if omitted
        #[arg(long, value_enum, requires = "file")]
        format: Option<FileFormat>,
    },
    /// Drop entries; they are no longer shown, but remain in the lake
    Drop {
        /// The table that the events were sent to
        table: String,
        /// The ids of the entries
        ids: Vec<String>,
        #[command(flatten)]
        filter: Filter,
        /// Drop all entries that the token gives access to
        #[arg(long)]
        all: bool,
        /// Confirm the drop; required
        #[arg(long)]
        yes: bool,
    },
}

/// The options that select entries.
#[derive(Debug, ClapArgs)]
struct Filter {
    /// Only entries of this tenant; '' selects entries without a tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only entries rejected for this reason
    #[arg(long)]
    reason: Option<String>,
    /// Only entries received since this time, such as 2026-03-01T12:00:00Z, or within this duration, such as 24h
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// The format of a corrected event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FileFormat {
    /// One JSON object
    Json,
    /// One protobuf message with a length prefix
    Protobuf,
}

#[derive(Debug, Deserialize)]
struct EntriesJson {
    counts: Vec<Counted>,
    #[serde(default)]
    entries: Vec<EntryJson>,
}

#[derive(Debug, Deserialize)]
struct Counted {
    table: String,
    reason: String,
    tenant: String,
    count: u64,
    last_received_time: String,
}

#[derive(Debug, Deserialize)]
struct Entries {
    entries: Vec<EntryJson>,
}

#[derive(Debug, Deserialize)]
struct EntryJson {
    id: String,
    received_time: String,
    tenant: String,
    reason: String,
    detail: String,
    place: String,
    payload: Option<String>,
    payload_hex: Option<String>,
}

/// The response to a replay request, or the sum of several responses.
#[derive(Debug, Default, Deserialize)]
struct Replayed {
    accepted: u64,
    duplicate: u64,
    rejected: u64,
    rejects: Vec<Rejected>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    id: String,
    reason: String,
    detail: String,
}

#[derive(Debug, Deserialize)]
struct Dropped {
    dropped: u64,
    more: bool,
}

/// Sends the requests of one subcommand and prints the results.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    args.client.check()?;
    super::block_on(async {
        match &args.command {
            Command::List { table, filter, limit } => list(args, table.as_deref(), filter, *limit).await,
            Command::Show { table, id, tenant } => show(args, table, id, tenant.as_deref()).await,
            Command::Replay { table, ids, filter, file: Some(file), format } => {
                replay_fixed(args, table, ids, filter, (file, *format)).await
            }
            Command::Replay { table, ids, filter, file: None, .. } => replay(args, table, ids, filter).await,
            Command::Drop { table, ids, filter, all, yes } => discard(args, table, ids, filter, (*all, *yes)).await,
        }
    })
}

async fn list(args: &Args, table: Option<&str>, filter: &Filter, limit: usize) -> Result<ExitCode> {
    let path: &[&str] = match table {
        Some(table) => &["v1", "tables", table, "quarantine"],
        None => &["v1", "quarantine"],
    };
    let mut query = filter.query()?;
    query.push(("limit", limit.to_string()));
    let response = args.client.get(path, &query).await?;
    let EntriesJson { counts, entries } = read(args, response)?;
    if args.client.json {
        return Ok(ExitCode::SUCCESS);
    }
    if counts.is_empty() {
        write_stderr("the quarantine is empty");
    }
    for Counted { table, reason, tenant, count, last_received_time } in counts {
        write_stdout(&format!("{count:>9}  {table}  {reason}  {}  last {last_received_time}", owner(&tenant)));
    }
    for entry in entries {
        write_stdout(&format!("{}  {}  {}  {}", entry.id, entry.received_time, owner(&entry.tenant), entry.reason));
        write_stdout(&format!("  {}\n  {}", entry.detail, entry.place));
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &Args, table: &str, id: &str, tenant: Option<&str>) -> Result<ExitCode> {
    let query: Vec<_> = tenant.map(|tenant| ("tenant", tenant.to_owned())).into_iter().collect();
    let response = args.client.get(&["v1", "tables", table, "quarantine", id], &query).await?;
    let Entries { entries } = read(args, response)?;
    for entry in entries.into_iter().filter(|_| !args.client.json) {
        write_stdout(&format!(
            "id        {}\nreceived  {}\ntenant    {}",
            entry.id,
            entry.received_time,
            owner(&entry.tenant)
        ));
        write_stdout(&format!("reason    {}\ndetail    {}\nplace     {}", entry.reason, entry.detail, entry.place));
        write_stdout("payload");
        write_stdout(&entry.payload.or(entry.payload_hex).unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

async fn replay(args: &Args, table: &str, ids: &[String], filter: &Filter) -> Result<ExitCode> {
    let (mut total, mut after) = (Replayed::default(), None);
    loop {
        let mut body = filter.body(ids)?;
        body["after"] = json!(after);
        let response = args.client.post(&["v1", "tables", table, "quarantine", "replay"], &body).await?;
        let page: Replayed = read(args, response)?;
        total.accepted += page.accepted;
        total.duplicate += page.duplicate;
        total.rejected += page.rejected;
        let remaining = REJECTS_SHOWN - total.rejects.len();
        total.rejects.extend(page.rejects.into_iter().take(remaining));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(print_outcome(args, &total))
}

async fn replay_fixed(
    args: &Args,
    table: &str,
    ids: &[String],
    filter: &Filter,
    (file, format): (&Path, Option<FileFormat>),
) -> Result<ExitCode> {
    let [id] = ids else { return Err(Error::invalid("--file replaces a single entry: use exactly one --id")) };
    let format = format.or_else(|| inferred_format(file));
    let kind = match format {
        Some(FileFormat::Json) => "application/json",
        Some(FileFormat::Protobuf) => "application/x-protobuf",
        None => return Err(Error::invalid("cannot infer the format of the file: use --format json|protobuf")),
    };
    let event = std::fs::read(file)
        .map_err(|error| Error::invalid(format!("cannot read `{}`: {error}", file.display())).with_source(error))?;
    let query: Vec<_> = filter.tenant.iter().map(|tenant| ("tenant", tenant.clone())).collect();
    let url = args.client.address(&["v1", "tables", table, "quarantine", id, "replay"], &query)?;
    let request = Request::post(url, kind, event).idempotent();
    let replayed: Replayed = read(args, args.client.send(request).await?)?;
    Ok(print_outcome(args, &replayed))
}

async fn discard(
    args: &Args,
    table: &str,
    ids: &[String],
    filter: &Filter,
    (all, yes): (bool, bool),
) -> Result<ExitCode> {
    if !yes {
        return Err(Error::invalid(
            "nothing was dropped: confirm with --yes, or see the entries with `quarantine list`",
        ));
    }
    let mut dropped = 0;
    loop {
        let mut body = filter.body(ids)?;
        body["all"] = json!(all);
        let response = args.client.post(&["v1", "tables", table, "quarantine", "drop"], &body).await?;
        let page: Dropped = serde_json::from_value(response).map_err(unreadable)?;
        dropped += page.dropped;
        if !page.more {
            break;
        }
    }
    if args.client.json {
        write_stdout(&json!({ "dropped": dropped }).to_string())
    } else {
        write_stdout(&format!("{dropped} dropped"))
    }
    Ok(ExitCode::SUCCESS)
}

impl Filter {
    fn query(&self) -> Result<Vec<(&'static str, String)>> {
        let since = self.since()?;
        let given = [("tenant", &self.tenant), ("reason", &self.reason), ("since", &since)];
        Ok(given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect())
    }

    fn body(&self, ids: &[String]) -> Result<Value> {
        let mut body = json!({ "ids": ids });
        for (name, value) in self.query()? {
            body[name] = value.into();
        }
        Ok(body)
    }

    /// Returns the time that `--since` specifies. A duration is subtracted from the current time.
    fn since(&self) -> Result<Option<String>> {
        let Some(given) = &self.since else { return Ok(None) };
        if DateTime::parse_from_rfc3339(given).is_ok() {
            return Ok(Some(given.clone()));
        }
        let age = parse_time(given).map_err(|_| {
            Error::invalid("invalid --since: use a time such as 2026-03-01T12:00:00Z, or a duration such as 24h")
        })?;
        let then = Clock::System.now().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
        let then = DateTime::from_timestamp_micros(then).unwrap_or_default();
        Ok(Some(then.to_rfc3339_opts(SecondsFormat::Micros, true)))
    }
}

/// Converts a JSON response to `T`. With `--json`, prints the unchanged response first.
fn read<T: DeserializeOwned>(args: &Args, response: Value) -> Result<T> {
    if args.client.json {
        write_stdout(&response.to_string());
    }
    serde_json::from_value(response).map_err(unreadable)
}

fn print_outcome(args: &Args, total: &Replayed) -> ExitCode {
    if !args.client.json {
        let Replayed { accepted, duplicate, rejected, rejects, .. } = total;
        write_stdout(&format!("{accepted} accepted, {duplicate} duplicate, {rejected} rejected again"));
        for Rejected { id, reason, detail } in rejects {
            write_stdout(&format!("  {id}  {reason}: {detail}"));
        }
    }
    if total.rejected == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn owner(tenant: &str) -> &str {
    if tenant.is_empty() { "(no tenant)" } else { tenant }
}

fn inferred_format(file: &Path) -> Option<FileFormat> {
    match file.extension()?.to_str()? {
        "json" | "ndjson" => Some(FileFormat::Json),
        "pb" | "protobuf" => Some(FileFormat::Protobuf),
        _ => None,
    }
}
