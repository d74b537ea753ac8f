//! Support for tests of ingest and of the endpoints: a small lake with one table, and a store with injected failures.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::ipc::writer::StreamWriter;
use async_trait::async_trait;
use futures::TryStreamExt as _;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use url::Url;

use super::{Body, Ingest, Receipt};
use crate::clock::Clock;
use crate::config::{ColumnConfig, IngestConfig, LakeConfig, TableConfig};
use crate::contract::{Contract, EventBatch};
use crate::error::Result;
use crate::lake::{DataFile, Replaced, Store, Table, Tables};
use crate::tenancy::Access;

/// The only declared table.
pub(crate) const TABLE: &str = "calls";
/// The quarantine of [`TABLE`].
pub(crate) const QUARANTINE: &str = "calls_quarantine";

/// Returns limits with which batches are committed within milliseconds and failures are not retried.
pub(crate) fn limits() -> IngestConfig {
    IngestConfig { batch_age_max: Duration::from_millis(5), commit_attempts_max: 1, ..IngestConfig::default() }
}

/// Returns the contract of [`TABLE`]. The contract has the columns `tenant_id`, `event_time`, `event_id` and `mos`, and
/// no map for unknown fields.
pub(crate) fn contract() -> Contract {
    let column = |(name, kind): (&str, &str)| ColumnConfig {
        name: name.to_owned(),
        kind: kind.to_owned(),
        ..ColumnConfig::default()
    };
    let columns = [("tenant_id", "text"), ("event_time", "timestamp"), ("event_id", "text"), ("mos", "float64")];
    let config = TableConfig {
        columns: columns.map(column).to_vec(),
        tenant: "tenant_id".to_owned(),
        time: "event_time".to_owned(),
        id: "event_id".to_owned(),
        ..TableConfig::default()
    };
    Contract::new(TABLE, &config, FilePath::new(".")).unwrap()
}

/// Creates an in-memory store.
pub(crate) fn memory() -> Store {
    faulty(&Arc::default())
}

/// Creates an in-memory store whose puts fail according to `faults`.
pub(crate) fn faulty(faults: &Arc<Faults>) -> Store {
    let objects = Arc::new(FaultyStore { inner: InMemory::new(), faults: faults.clone() });
    Store::wrap(objects, Url::parse("memory:///").unwrap(), Path::default())
}

/// Opens the table and its quarantine, as a server does at startup.
pub(crate) async fn open(store: &Store) -> Arc<Tables> {
    open_as(store, &Arc::new(contract())).await
}

/// Like [`open`], but for the given contract.
pub(crate) async fn open_as(store: &Store, contract: &Arc<Contract>) -> Arc<Tables> {
    let lake = LakeConfig::default();
    let mut tables = BTreeMap::new();
    for contract in [Arc::new(Contract::quarantine_of(contract)), Arc::clone(contract)] {
        let name = contract.name.clone();
        tables.insert(name, Table::open(store, contract, &lake).await.unwrap());
    }
    Arc::new(tables)
}

/// Opens the tables and starts an [`Ingest`] that writes to them.
pub(crate) async fn start(store: &Store, limits: IngestConfig) -> Arc<Ingest> {
    Ingest::start(open(store).await, Vec::new(), limits, Clock::System, Arc::default()).await.unwrap()
}

/// Submits a body in the same way as the endpoints.
pub(crate) async fn submit(ingest: &Ingest, access: &Access, table: &str, body: Body) -> Result<Receipt> {
    let (writer, target) = (&ingest.writer, ingest.writer.authorize(access, table)?);
    writer.submit(writer.reservation(), &target, body, "test").await
}

/// Returns one event per id, as NDJSON.
pub(crate) fn lines<T: fmt::Display>(ids: impl IntoIterator<Item = T>) -> String {
    ids.into_iter()
        .map(|id| format!("{{\"event_id\":\"{id}\",\"event_time\":\"2026-03-01T12:00:00Z\",\"mos\":4.2}}\n"))
        .collect()
}

/// Returns one event per id, as a record batch without a tenant column.
pub(crate) fn columns<'a>(ids: impl IntoIterator<Item = &'a str>) -> RecordBatch {
    let ids = StringArray::from_iter_values(ids);
    let times = TimestampMicrosecondArray::from(vec![1_772_366_400_000_000; ids.len()]).with_timezone("UTC");
    let values = Float64Array::from(vec![4.2; ids.len()]);
    let columns: [(&str, ArrayRef); 3] =
        [("event_id", Arc::new(ids)), ("event_time", Arc::new(times)), ("mos", Arc::new(values))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Returns the events of [`columns`] as an Arrow IPC stream.
pub(crate) fn arrow_stream<'a>(ids: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let rows = columns(ids);
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

/// Yields `count` damaged copies of `whole`, each with the seed from which it was generated. Each copy has a few
/// changed bytes, and some copies are also truncated.
pub(crate) fn mutations(whole: &[u8], count: u64) -> impl Iterator<Item = (u64, Vec<u8>)> {
    (0..count).map(|seed| {
        let (mut random, mut bytes) = (StdRng::seed_from_u64(seed), whole.to_vec());
        for _ in 0..random.random_range(1..=4) {
            let index = random.random_range(0..bytes.len());
            bytes[index] = match random.random_range(0..4) {
                0 => 0,
                1 => 0xff,
                2 => bytes[index] ^ 1 << random.random_range(0..8),
                _ => random.random(),
            };
        }
        if random.random_range(0..10) == 0 {
            bytes.truncate(random.random_range(0..bytes.len()));
        }
        (seed, bytes)
    })
}

/// Opens the table again and returns the (tenant, id) pairs of all its rows, sorted.
pub(crate) async fn stored(store: &Store, table: &str) -> Vec<(String, String)> {
    let tables = open(store).await;
    let mut rows = Vec::new();
    for file in tables[table].snapshot().files() {
        for batch in tables[table].keys(file).await.unwrap() {
            let (tenants, ids) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
            rows.extend((0..batch.num_rows()).map(|row| (tenants.value(row).to_owned(), ids.value(row).to_owned())));
        }
    }
    rows.sort_unstable();
    rows
}

/// Writes the rows of files to `parts` new files, and replaces the files.
pub(crate) async fn rewrite(table: &Table, from: &[Arc<DataFile>], parts: usize) -> Result<Replaced> {
    let contract = table.contract();
    let columns: Vec<&str> = contract.schema().fields().iter().map(|field| field.name().as_str()).collect();
    let mut batches = Vec::new();
    for file in from {
        let mut rows = table.rows(file, &columns, None, 1_000).await?;
        while let Some(rows) = rows.try_next().await? {
            let columns = columns.iter().map(|name| rows.column_by_name(name).unwrap().clone()).collect();
            let rows = RecordBatch::try_new(contract.schema().clone(), columns).unwrap();
            batches.push(EventBatch::new(contract, rows)?);
        }
    }
    let rows = EventBatch::concat(&batches.iter().collect::<Vec<_>>())?;
    let (mut to, part_rows) = (Vec::new(), rows.num_rows().div_ceil(parts));
    for first in (0..rows.num_rows()).step_by(part_rows) {
        to.extend(table.write(rows.slice(first, part_rows.min(rows.num_rows() - first))).await?);
    }
    table.replace(from, to).await
}

/// The faults to inject into the next puts of a store.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// The number of puts that fail without effect.
    pub(crate) refused: AtomicUsize,
    /// The number of puts that succeed but return an error.
    pub(crate) answer_lost: AtomicUsize,
    /// The number of puts that panic before they have any effect.
    pub(crate) panics_before: AtomicUsize,
    /// The number of puts that panic after they have succeeded.
    pub(crate) panics_after: AtomicUsize,
    /// True if puts never return.
    pub(crate) hangs: AtomicBool,
}

/// A store whose puts fail according to [`Faults`].
#[derive(Debug)]
struct FaultyStore {
    inner: InMemory,
    faults: Arc<Faults>,
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

/// Decrements a counter. Returns false if it was already zero.
fn take(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1)).is_ok()
}

fn failure() -> object_store::Error {
    object_store::Error::Generic { store: "Faulty", source: "the connection was lost".into() }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        if self.faults.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        assert!(!take(&self.faults.panics_before), "injected panic before the put");
        if take(&self.faults.refused) {
            return Err(failure());
        }
        let put = self.inner.put_opts(path, payload, options).await;
        assert!(!take(&self.faults.panics_after), "injected panic after the put");
        if take(&self.faults.answer_lost) { Err(failure()) } else { put }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
