//! The command `glasshouse transform` tests a source's transform on sample messages.
//!
//! It reads sample messages, one per line. It prints the rows that would be stored, and the messages that would be
//! rejected, each with its reason. It stores nothing and does not contact Kafka.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use clap::{Args as ClapArgs, Subcommand};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::config::Config;
use crate::contract::{Contract, MESSAGES_MAX, RECEIVED_TIME};
use crate::error::{Error, Result, did_you_mean};
use crate::ingest::{DryRun, Sample, dry_run};
use crate::server;
use crate::supervise;
use crate::transform::Lookups;

/// The maximum length of a line in a sample file, in bytes.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Test a source's transform.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Try(Try),
}

/// Run a source's transform over sample messages and show the rows and rejected messages
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Each line contains the value of one message. If the source has `envelope = \"debezium\"`, the value is the
whole envelope. With --messages, each line contains the key, the headers and the value of one message:
  {\"key\": \"k1\", \"headers\": {\"account\": \"acme\"}, \"value\": {\"op\": \"c\", \"after\": {\"id\": 1}}}

The command prints the rows that the table would contain. It stores nothing and does not contact Kafka.
It loads lookup tables as the server does: a lookup table with a `query` reads the lake. To load a lookup
table from a file instead, use --lookup.

Examples:
  glasshouse transform try orders --sample orders.jsonl
  kcat -C -b 127.0.0.1:9092 -t tacosoft.public.orders -c 20 | glasshouse transform try orders
  glasshouse transform try orders --sample orders.jsonl --lookup restaurants=restaurants.csv

Exit codes:
  0 no message was rejected, 1 some messages were rejected, or the source would stop at a message,
  3 invalid configuration")]
struct Try {
    /// The name of the source, as in [sources.NAME]
    source: String,
    /// A file with sample messages, one per line; `-` for standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    sample: PathBuf,
    /// The number of messages to use
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
    /// Read each line as a message with its key and headers: {"key":…,"headers":{…},"value":…}
    #[arg(long)]
    messages: bool,
    /// Load a lookup table from this file instead of its configured location
    #[arg(long = "lookup", value_name = "NAME=FILE", value_parser = named_file)]
    lookups: Vec<(String, PathBuf)>,
}

/// One line of the input if `--messages` is given: a message with its key and headers.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

/// Runs the transform over the samples, and prints the rows and the rejected messages.
pub(crate) fn run(args: &Args, config: &Config) -> Result<ExitCode> {
    let Command::Try(args) = &args.command;
    let samples = samples(args)?;
    let given = samples.iter().map(|(_, sample)| sample.clone()).collect();
    let mut outcome = super::block_on(transformed(args, config, given))?;
    show(&outcome, &samples)?;
    if let Some((index, error)) = outcome.stop.take() {
        return Err(error.at(format!("line {}", line_of(&samples, index))));
    }
    Ok(if outcome.rejects.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn transformed(args: &Try, config: &Config, samples: Vec<Sample>) -> Result<DryRun> {
    let name = &args.source;
    let Some(source) = config.sources.get(name) else {
        let near = did_you_mean(name, config.sources.keys().map(String::as_str));
        return Err(Error::invalid(format!("unknown source `{name}`{near}: declare [sources.{name}]")));
    };
    let contracts = server::contracts(config)?;
    let lookups = Lookups::new(&config.lookups, &config.ingest, Arc::default());
    load(args, config, &contracts, &lookups).await?;
    let contract = contracts.iter().find(|contract| contract.name == source.table).cloned();
    let contract = contract.ok_or_else(|| Error::internal("a checked source has a table"))?;
    let (source, config, name, runtime) = (source.clone(), config.clone(), name.clone(), Handle::current());
    supervise::blocking("the dry run", move || {
        let transform = server::transform(&config, &name, Some(&contracts), &lookups)?;
        let transform = transform.ok_or_else(|| Error::invalid(format!("source `{name}` has no transform")))?;
        dry_run(&source, &transform, &contract, &samples, &config.ingest, &Clock::System, &runtime)
    })
    .await
}

/// Loads each lookup table from its configured location, or from the file given with `--lookup`.
async fn load(args: &Try, config: &Config, contracts: &[Arc<Contract>], lookups: &Arc<Lookups>) -> Result<()> {
    for (name, file) in &args.lookups {
        lookups.load_instead(name, file).map_err(|error| error.at(format!("--lookup {name}")))?;
    }
    let is_replaced = |name: &String| args.lookups.iter().any(|(replaced, _)| replaced == name);
    let remaining: Vec<_> = config.lookups.iter().filter(|(name, _)| !is_replaced(name)).collect();
    let lookup_query = match remaining.iter().any(|(_, lookup)| lookup.query.is_some()) {
        true => Some(server::lookup_query_of(config, contracts, &Clock::System).await?),
        false => None,
    };
    for (name, _) in remaining {
        lookups.load_one(name, lookup_query.as_ref()).await?;
    }
    Ok(())
}

/// Reads the sample file. Returns each sample with its line number, counted from 1.
fn samples(args: &Try) -> Result<Vec<(usize, Sample)>> {
    let unreadable = |error: io::Error| Error::invalid(format!("cannot read {}: {error}", args.sample.display()));
    let reader: Box<dyn BufRead> = match args.sample == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(&args.sample).map_err(unreadable)?)),
    };
    let mut samples = Vec::new();
    for (index, line) in reader.split(b'\n').enumerate() {
        let line = line.map_err(unreadable)?;
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if samples.len() == args.limit.min(MESSAGES_MAX) {
            break;
        }
        if text.len() > LINE_BYTES_MAX {
            return Err(Error::limited(format!("line {} has more than {LINE_BYTES_MAX} bytes", index + 1)));
        }
        let sample = match args.messages {
            true => parse_message(text).map_err(|error| Error::invalid(format!("line {}: {error}", index + 1)))?,
            false => Sample { value: Some(text.to_vec()), ..Sample::default() },
        };
        samples.push((index + 1, sample));
    }
    Ok(samples)
}

/// Parses a line as a message with a key and headers (`--messages`).
fn parse_message(line: &[u8]) -> std::result::Result<Sample, serde_json::Error> {
    let Line { key, headers, value } = serde_json::from_slice(line)?;
    let key = key.map(|key| match serde_json::from_str::<String>(key.get()) {
        Ok(text) => text.into_bytes(),
        Err(_) => key.get().as_bytes().to_vec(),
    });
    let headers = headers.into_iter().map(|(name, value)| (name, Some(value.into_bytes()))).collect();
    Ok(Sample { value: value.map(|value| value.get().as_bytes().to_vec()), key, headers })
}

fn show(outcome: &DryRun, samples: &[(usize, Sample)]) -> Result<()> {
    let rows = &outcome.rows;
    // The receive time is not shown, because it comes from the clock and not from the transform.
    let shown = (0..rows.num_columns()).filter(|column| rows.schema_ref().field(*column).name() != RECEIVED_TIME);
    let shown: Vec<usize> = shown.collect();
    let failed = |cause: arrow::error::ArrowError| Error::internal("cannot format the rows").with_source(cause);
    let shown = rows.project(&shown).map_err(failed)?;
    super::write_stdout(&pretty_format_batches(&[shown]).map_err(failed)?.to_string());
    for reject in &outcome.rejects {
        let line = usize::try_from(reject.index).map_or(0, |index| line_of(samples, index));
        super::write_stderr(&format!("rejected: line {line}: {}: {}", reject.reason.as_str(), reject.detail));
    }
    let messages = outcome.stop.as_ref().map_or(samples.len(), |(index, _)| *index);
    let rejected = outcome.rejects.len();
    super::write_stderr(&format!("{messages} messages, {} rows, {rejected} rejected", rows.num_rows()));
    Ok(())
}

/// Returns the line number of a sample, or 0 if there is no such sample.
fn line_of(samples: &[(usize, Sample)], index: usize) -> usize {
    samples.get(index).map_or(0, |(line, _)| *line)
}

fn named_file(text: &str) -> std::result::Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("expected NAME=FILE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::parse;

    const CONFIG: &str = r#"
        [lake]
        url = "memory:///"
        [auth.issuers.dev]
        issuer = "https://dev"
        audience = "glasshouse"
        algorithms = ["HS256"]
        secret = "0123456789abcdef0123456789abcdef"
        [tables.orders]
        tenant = "who"
        time = "at"
        id = "id"
        columns = { who = "text", at = "timestamp", id = "text", city = "text" }
        [sources.orders]
        kind = "kafka"
        brokers = ["localhost:9092"]
        topics = ["orders"]
        group = "glasshouse"
        table = "orders"
        tenant = { header = "account" }
        transform = """
            SELECT time AS at, value->>'id' AS id, p.city FROM messages JOIN places p ON p.id = json_int(value, 'place')
        """
        [lookups.places]
        file = "nowhere.csv"
    "#;

    /// Runs `transform try` on `lines`. Returns the tenant, id and city of each row, and the line number and reason of
    /// each rejected message and of the message at which the source stops.
    fn tried(config: &str, lines: &str, more: &[&str]) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let (sample, places) = (folder.path().join("sample"), folder.path().join("places.csv"));
        std::fs::write(&sample, lines).unwrap();
        std::fs::write(&places, "id,city\n1,Lima\n").unwrap();
        let lookup = format!("places={}", places.display());
        let args = ["transform", "try", "orders", "--lookup", &lookup, "--sample", sample.to_str().unwrap()];
        let cli = parse(&[&args[..], more].concat()).unwrap();
        let super::super::Command::Transform(Args { command: Command::Try(args) }) = cli.command else { panic!() };
        let config = Config::parse(config, "t.toml", folder.path(), std::iter::empty()).unwrap();
        let samples = samples(&args).unwrap();
        let given = samples.iter().map(|(_, sample)| sample.clone()).collect();
        let outcome = crate::cli::block_on(super::transformed(&args, &config, given)).unwrap();
        show(&outcome, &samples).unwrap();
        let text = |row: usize, name: &str| {
            let column = outcome.rows.column_by_name(name).unwrap();
            arrow::util::display::array_value_to_string(column, row).unwrap()
        };
        let row = |row: usize| ["who", "id", "city"].map(|name| text(row, name)).join(" ");
        let reject =
            |note: &crate::ingest::RejectNote| format!("{} {}", samples[note.index as usize].0, note.reason.as_str());
        let stop = outcome.stop.iter().map(|(index, error)| format!("{} {error}", line_of(&samples, *index)));
        let rejects = outcome.rejects.iter().map(reject).chain(stop).collect();
        ((0..outcome.rows.num_rows()).map(row).collect(), rejects)
    }

    #[test]
    fn samples_become_rows_or_are_rejected_with_their_line_numbers() {
        let lines = r#"{"headers":{"account":"acme"},"value":{"id":"a","place":1}}

            {"key":7,"value":{"id":"b","place":1}}
            {"headers":{"account":"acme"},"value":{"place":1}}
            {"headers":{"account":"globex"},"value":{"id":"d","place":9}}
            {"headers":{"account":"globex"},"value":{"id":"e","place":1}}"#;
        let (rows, rejects) = tried(CONFIG, lines, &["--messages"]);
        assert_eq!(rows, ["acme a Lima", "globex e Lima"]);
        assert_eq!(rejects, ["3 missing_tenant", "4 missing_id"]);
        let (rows, rejects) = tried(CONFIG, lines, &["--messages", "--limit", "1"]);
        assert_eq!((rows.len(), rejects.len()), (1, 0));
        let (rows, rejects) = tried(CONFIG, "{\"id\":\"a\",\"place\":1}\n{", &[]);
        assert_eq!(
            (rows.len(), rejects.as_slice()),
            (0, &["1 missing_tenant".to_owned(), "2 missing_tenant".to_owned()][..])
        );
    }

    #[test]
    fn rows_before_a_truncation_are_shown() {
        let config = CONFIG.replace("table = \"orders\"", "table = \"orders\"\nenvelope = \"debezium\"");
        let config = config.replace("SELECT time AS", "SELECT changed_time AS").replace("value", "row");
        let headers = r#""headers":{"account":"acme"}"#;
        let change = |id: &str, place: i32| {
            format!(r#"{{{headers},"value":{{"op":"c","after":{{"id":"{id}","place":{place}}}}}}}"#)
        };
        let truncation = format!(r#"{{{headers},"value":{{"op":"t"}}}}"#);
        let lines =
            [change("a", 1), format!("{{{headers},\"value\":{{}}}}"), String::new(), truncation, change("b", 1)]
                .join("\n");
        let (rows, rejects) = tried(&config, &lines, &["--messages"]);
        assert_eq!(rows, ["acme a Lima"]);
        assert!(rejects.len() == 2 && rejects[0].starts_with("2 "), "{rejects:?}");
        assert!(rejects[1].starts_with("4 the database table was truncated"), "{rejects:?}");
    }

    #[test]
    fn a_message_has_a_key_headers_and_a_value() {
        let sample = parse_message(br#"{"key":"k","headers":{"h":"v"},"value":{"a": 1}}"#).unwrap();
        assert_eq!(sample.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(sample.value.as_deref(), Some(&br#"{"a": 1}"#[..]));
        assert_eq!(sample.headers, [("h".to_owned(), Some(b"v".to_vec()))]);
        assert_eq!(parse_message(br#"{"key":{"id":1},"value":null}"#).unwrap().value, None, "null is a tombstone");
        assert!(parse_message(b"7").is_err() && named_file("a").is_err() && named_file("a=b").is_ok());
    }
}
