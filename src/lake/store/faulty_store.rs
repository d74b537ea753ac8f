//! An object store for tests. A test decides which puts of log entries fail, and how.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The outcome that a test has planned for the put of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lake) enum StoreFault {
    /// The put succeeds.
    None,
    /// The entry is stored, but the response is lost.
    ResponseLost,
    /// The entry is not stored, and the put fails.
    Lost,
    /// The put fails at first, but takes effect later: the entry is stored just before the next put of an entry.
    Late,
    /// The entry is stored, but the client receives no response and retries the put. The retry reports that the entry
    /// already exists.
    Retried,
}

/// An object store with planned failures.
#[derive(Debug)]
pub(in crate::lake) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Mutex<VecDeque<StoreFault>>,
    late: Mutex<Option<(Path, PutPayload)>>,
}

impl FaultyStore {
    pub(in crate::lake) fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, faults: Mutex::default(), late: Mutex::default() })
    }

    /// Plans the outcomes of the next puts of log entries, in order. After these puts, all puts succeed.
    pub(in crate::lake) fn plan(&self, faults: &[StoreFault]) {
        self.faults.lock().unwrap().extend(faults);
    }
}

fn lost() -> Error {
    Error::Generic { store: "faulty", source: "the response was lost".into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if path.extension() != Some("json") {
            return self.inner.put_opts(path, payload, options).await;
        }
        let late = self.late.lock().unwrap().take();
        if let Some((path, payload)) = late {
            self.inner.put_opts(&path, payload, options.clone()).await?;
        }
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(StoreFault::None);
        match fault {
            StoreFault::None => self.inner.put_opts(path, payload, options).await,
            StoreFault::ResponseLost => self.inner.put_opts(path, payload, options).await.and(Err(lost())),
            StoreFault::Lost => Err(lost()),
            StoreFault::Late => {
                *self.late.lock().unwrap() = Some((path.clone(), payload));
                Err(lost())
            }
            StoreFault::Retried => {
                self.inner.put_opts(path, payload, options).await?;
                Err(Error::AlreadyExists { path: path.to_string(), source: "a retry".into() })
            }
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
