//! The store client of one simulated process. The client's requests wait for the [`StoreScheduler`], which decides
//! their outcome.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::DateTime;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::store_faults::StoreAction;
use super::store_scheduler::{PendingPut, PutVerdict, StoreScheduler, failure};

/// An object store that lets the scheduler decide the outcome of each request.
#[derive(Debug, Clone)]
pub(super) struct StoreClient {
    pub(super) bucket: Arc<StoreScheduler>,
    /// The process. `None` for a client without faults, whose requests are performed immediately.
    pub(super) process: Option<usize>,
}

impl StoreClient {
    async fn ask(&self, action: StoreAction, path: &Path, put: Option<PendingPut>) -> PutVerdict {
        match self.process {
            Some(process) => self.bucket.ask(process, action, path, put).await,
            None => self.bucket.perform(action, path, put),
        }
    }

    /// Sets the simulated modification time.
    fn with_time(&self, mut object: ObjectMeta) -> ObjectMeta {
        let modified = self.bucket.modified(&object.location).and_then(DateTime::from_timestamp_micros);
        object.last_modified = modified.unwrap_or(object.last_modified);
        object
    }

    /// Waits until the scheduler chooses the request, and fails if the request must fail. Otherwise returns true if the
    /// response must be complete, and false if it must be truncated.
    async fn wait_for_verdict(&self, action: StoreAction, path: &Path) -> Result<bool> {
        match self.ask(action, path, None).await {
            PutVerdict::Go => Ok(true),
            PutVerdict::CutOff => Ok(false),
            PutVerdict::Fail(error) | PutVerdict::Put(Err(error)) => Err(error),
            PutVerdict::Put(Ok(_)) => unreachable!("this request is not a put"),
        }
    }
}

impl fmt::Display for StoreClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store client of process {:?}", self.process)
    }
}

/// Changes a response so that reading it fails after the first half.
fn cut_off(mut found: GetResult) -> GetResult {
    let half = (found.range.end - found.range.start) / 2;
    found.payload = match found.payload {
        GetResultPayload::Stream(body) => {
            let body = body.map_ok(move |bytes| bytes.slice(..usize::try_from(half).unwrap().min(bytes.len())));
            GetResultPayload::Stream(body.chain(stream::iter([Err(failure("the connection was lost"))])).boxed())
        }
        file @ GetResultPayload::File(..) => file,
    };
    found
}

#[async_trait]
impl ObjectStore for StoreClient {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let put = PendingPut { path: path.clone(), payload, options };
        match self.ask(put.action(), path, Some(put)).await {
            PutVerdict::Put(result) => result,
            PutVerdict::Fail(error) => Err(error),
            PutVerdict::Go | PutVerdict::CutOff => unreachable!("a put has its own verdict"),
        }
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.wait_for_verdict(StoreAction::Put, path).await?;
        self.bucket.objects.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let is_complete = self.wait_for_verdict(StoreAction::Get, path).await?;
        let mut found = self.bucket.objects.get_opts(path, options).await?;
        found.meta = self.with_time(found.meta);
        Ok(if is_complete { found } else { cut_off(found) })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store_client = self.clone();
        let delete = move |path: Path| {
            let store_client = store_client.clone();
            async move {
                // The scheduler deletes the object itself.
                store_client.wait_for_verdict(StoreAction::Delete, &path).await.map(|_| path)
            }
        };
        paths.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store_client, prefix) = (self.clone(), prefix.cloned());
        let listing = async move {
            let is_complete =
                store_client.wait_for_verdict(StoreAction::List, &prefix.clone().unwrap_or_default()).await;
            let times = store_client.clone();
            let found = store_client.bucket.objects.list(prefix.as_ref());
            let found = found.map_ok(move |object| times.with_time(object)).boxed();
            match is_complete {
                Ok(true) => found,
                Ok(false) => found.take(2).chain(stream::iter([Err(failure("the connection was lost"))])).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        listing.flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.wait_for_verdict(StoreAction::List, &prefix.cloned().unwrap_or_default()).await?;
        let mut found = self.bucket.objects.list_with_delimiter(prefix).await?;
        found.objects = found.objects.into_iter().map(|object| self.with_time(object)).collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.wait_for_verdict(StoreAction::Put, to).await?;
        self.bucket.objects.copy_opts(from, to, options).await
    }
}
