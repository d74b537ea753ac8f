//! Test support: a source with a transform over the table `orders`, and messages.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use super::{Lookups, Message, MessageError, Rows, Transform};
use crate::config::{ColumnConfig, Envelope, IngestConfig, LookupConfig, SourceConfig, TableConfig};
use crate::contract::Contract;
use crate::error::Result;

/// The time 2026-03-01T12:00:00Z, in microseconds since 1970.
pub(super) const NOON: i64 = 1_772_366_400_000_000;

/// A lookup table of restaurants as CSV, in which the id 1 appears twice.
const RESTAURANTS: &str = "id,name,city\n1,Taco Uno,Lima\n1,Taco Uno,Cusco\n2,Dos,Quito\n3,Tres,\n";

/// Returns the table to which the transform writes.
fn orders() -> Arc<Contract> {
    let columns = [
        ("tenant_id", "text"),
        ("event_time", "timestamp"),
        ("event_id", "text"),
        ("total", "float64"),
        ("items", "int64"),
        ("city", "text"),
    ];
    let column = |(name, kind): (&str, &str)| ColumnConfig {
        name: name.to_owned(),
        kind: kind.to_owned(),
        ..ColumnConfig::default()
    };
    let config = TableConfig {
        columns: columns.map(column).to_vec(),
        tenant: "tenant_id".to_owned(),
        time: "event_time".to_owned(),
        id: "event_id".to_owned(),
        ..TableConfig::default()
    };
    Arc::new(Contract::new("orders", &config, Path::new(".")).unwrap())
}

/// A source with a transform, and its lookups.
pub(super) struct Case {
    pub(super) source: SourceConfig,
    pub(super) limits: IngestConfig,
    lookups: BTreeMap<String, LookupConfig>,
    files: Vec<NamedTempFile>,
}

impl Case {
    pub(super) fn new(sql: &str) -> Self {
        let source = SourceConfig { transform: Some(sql.to_owned()), ..SourceConfig::default() };
        let (lookups, files) = (BTreeMap::new(), Vec::new());
        // The time limit of a run is long enough for a busy host. Only the test of this limit sets a shorter limit.
        let limits = IngestConfig { transform_time_max: Duration::from_secs(1_000), ..IngestConfig::default() };
        Self { source, limits, lookups, files }.with("restaurants", RESTAURANTS)
    }

    pub(super) fn debezium(sql: &str) -> Self {
        let mut case = Self::new(sql);
        case.source.envelope = Envelope::Debezium;
        case
    }

    pub(super) fn with(mut self, name: &str, csv: &str) -> Self {
        let mut file = NamedTempFile::with_suffix(".csv").unwrap();
        file.write_all(csv.as_bytes()).unwrap();
        let lookup = LookupConfig { file: Some(file.path().to_owned()), ..LookupConfig::default() };
        self.lookups.insert(name.to_owned(), lookup);
        self.files.push(file);
        self
    }

    pub(super) fn transform(&self) -> Result<Arc<Transform>> {
        let lookups = Lookups::new(&self.lookups, &self.limits, Arc::default());
        assert!(lookups.load_files().is_empty());
        let transform = Transform::new("shop", &self.source, &orders(), &lookups, &self.limits)?;
        Ok(transform.expect("the source has a statement"))
    }

    /// Runs the transform. Returns the rows as sorted strings `message index: JSON`, and the messages that cannot be
    /// transformed.
    pub(super) fn run(&self, messages: &[Message<'_>]) -> Result<(Vec<String>, Vec<MessageError>)> {
        let runtime = Runtime::new().unwrap();
        let outcome = self.transform()?.run(messages, runtime.handle(), |rows| Ok(lines(&rows)))?;
        let mut lines = outcome.parts.concat();
        lines.sort();
        Ok((lines, outcome.errors))
    }

    pub(super) fn values(&self, values: &[&str]) -> (Vec<String>, Vec<MessageError>) {
        let messages: Vec<_> = values.iter().enumerate().map(|(offset, value)| message(offset, value)).collect();
        self.run(&messages).unwrap()
    }
}

fn lines(rows: &Rows) -> Vec<String> {
    let mut json = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut json);
    writer.write(&rows.batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let json = String::from_utf8(json).unwrap();
    json.lines().zip(&rows.messages).map(|(line, message)| format!("{message}: {line}")).collect()
}

/// Returns a message with an offset and a value.
pub(super) fn message(offset: usize, value: &str) -> Message<'_> {
    let offset = i64::try_from(offset).unwrap();
    Message {
        value: Some(value.as_bytes()),
        key: Some(b"acme"),
        headers: &[],
        topic: "shop.orders",
        partition: 0,
        offset,
        time: Some(NOON),
    }
}

/// Returns the start of a statement, `SELECT … FROM`, with all key columns and the columns in `more`.
pub(super) fn select(more: &str) -> String {
    format!("SELECT key AS tenant_id, time AS event_time, value->>'id' AS event_id{more} FROM")
}
