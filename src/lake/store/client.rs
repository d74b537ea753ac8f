//! Opens the lake's object store.
//!
//! A [`Store`] contains a client for the whole bucket or file system, and the common prefix of all table folders. The
//! client limits how often it retries a request.
//!
//! **Invariant:** the client supports conditional puts (put if absent), which make commits atomic. With a store that
//! does not support conditional puts, every commit fails.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::SpawnedReqwestConnector;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use tokio::runtime::Handle;
use url::Url;

use crate::clock::Clock;
use crate::config::LakeConfig;
use crate::error::{Error, Result};
use crate::lake::store::durable_folder::DurableFolder;

/// An object store, and the prefix that all table folders have in common.
#[derive(Debug, Clone)]
pub struct Store {
    /// The client for the whole store (a bucket, or the root of the file system).
    pub objects: Arc<dyn ObjectStore>,
    /// The store's root URL, such as `s3://bucket/` or `file:///`. The query engine registers `objects` under this URL.
    pub root: Url,
    /// The lake's prefix in the store.
    pub prefix: Path,
    /// The clock that timestamps commits and files.
    pub clock: Clock,
}

impl Store {
    /// Opens a `file://`, `s3://` or `memory://` URL. Creates a missing local folder. Each `memory://` store is a
    /// separate lake. For S3, the settings come from the usual `AWS_*` variables and from instance credentials.
    /// `lake.options` overrides them.
    pub fn open(config: &LakeConfig) -> Result<Self> {
        let url = Url::parse(&config.url).map_err(|error| {
            Error::invalid(format!(
                "lake.url `{}` is not a URL: use file:///path, s3://bucket/prefix or memory:///",
                config.url
            ))
            .with_source(error)
        })?;
        match url.scheme() {
            "memory" => Ok(Self::wrap(Arc::new(InMemory::new()), root_of(&url), prefix_of(&url)?)),
            "file" => open_folder(&url),
            "s3" => open_bucket(&url, config),
            other => Err(Error::invalid(format!("lake.url: unknown scheme `{other}`: use file, s3 or memory"))),
        }
    }

    /// Wraps an existing store, such as one that injects failures in tests.
    pub fn wrap(objects: Arc<dyn ObjectStore>, root: Url, prefix: Path) -> Self {
        Self { objects, root, prefix, clock: Clock::System }
    }

    /// Replaces the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Returns a table's folder.
    pub(in crate::lake) fn folder(&self, table: &str) -> Path {
        self.prefix.clone().join(table)
    }

    /// Returns a folder as a local path, or `None` if the store is not the local file system.
    pub(in crate::lake) fn local(&self, folder: &Path) -> Option<PathBuf> {
        (self.root.scheme() == "file").then(|| self.url(folder).ok()?.to_file_path().ok())?
    }

    /// Returns the URL of a folder in this store, with a slash at the end.
    pub(in crate::lake) fn url(&self, folder: &Path) -> Result<Url> {
        let mut url = self.root.clone();
        url.path_segments_mut()
            .map_err(|()| {
                Error::invalid(format!(
                    "lake.url `{}` cannot contain a path: use file:///path, s3://bucket/prefix or memory:///",
                    self.root
                ))
            })?
            .pop_if_empty()
            .extend(folder.parts().map(|part| part.as_ref().to_owned()))
            .push("");
        Ok(url)
    }
}

/// Converts an error from the object store. `what` names the object.
pub(in crate::lake) fn store_error(what: impl std::fmt::Display, error: object_store::Error) -> Error {
    let error_for_caller = match &error {
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => Error::unsupported(
            format!("{what}: the object store does not support this operation: commits require conditional puts"),
        ),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Error::unavailable(format!(
                "{what}: the object store refused the credentials: check lake.options and the AWS_* variables"
            ))
        }
        object_store::Error::NotFound { .. } => Error::unavailable(format!("{what}: not found in the object store")),
        _ if is_full(&error) => Error::unavailable(format!(
            "{what}: the lake's disk is full or its quota is exhausted: free some space, and writes resume automatically"
        )),
        _ => Error::unavailable(format!("{what}: the request to the object store failed")),
    };
    error_for_caller.with_source(error)
}

/// Returns true if the error means that the local disk is full.
fn is_full(error: &object_store::Error) -> bool {
    let causes = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |cause| cause.source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
    })
}

fn open_folder(url: &Url) -> Result<Store> {
    let folder = url
        .to_file_path()
        .map_err(|()| Error::invalid(format!("lake.url `{url}` is not a local path: use file:///path")))?;
    std::fs::create_dir_all(&folder).map_err(|error| {
        Error::invalid(format!("lake.url: cannot create folder {}", folder.display())).with_source(error)
    })?;
    Ok(Store::wrap(Arc::new(DurableFolder::new()), root_of(url), prefix_of(url)?))
}

fn open_bucket(url: &Url, config: &LakeConfig) -> Result<Store> {
    let tries = u32::try_from(config.request_retries_max).unwrap_or(u32::MAX).saturating_add(1);
    let mut builder = AmazonS3Builder::from_env()
        .with_url(url.as_str())
        .with_retry(RetryConfig {
            max_retries: config.request_retries_max,
            retry_timeout: config.request_time_max.saturating_mul(tries),
            ..RetryConfig::default()
        })
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), millis(config.request_time_max));
    for (key, value) in &config.options {
        let key: AmazonS3ConfigKey = key.parse().map_err(|error: object_store::Error| {
            Error::invalid(format!("lake.options: unknown option `{key}`: use names like `aws_region`"))
                .with_source(error)
        })?;
        builder = builder.with_config(key, value);
    }
    // Connections are pooled, so a query and a commit may use the same one. The runtime that opened the store therefore
    // runs the I/O of all connections. If query threads ran the I/O of the connections that queries open, a commit
    // might have to wait for a busy query thread.
    if let Ok(runtime) = Handle::try_current() {
        builder = builder.with_http_connector(SpawnedReqwestConnector::new(runtime));
    }
    let bucket = builder.build().map_err(|error| {
        Error::invalid(format!("lake.url `{url}` and lake.options do not specify a bucket: use s3://bucket/prefix"))
            .with_source(error)
    })?;
    Ok(Store::wrap(Arc::new(bucket), root_of(url), prefix_of(url)?))
}

fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// Returns the URL without its path, query and fragment.
fn root_of(url: &Url) -> Url {
    let mut root = url.clone();
    root.set_path("/");
    root.set_query(None);
    root.set_fragment(None);
    root
}

fn prefix_of(url: &Url) -> Result<Path> {
    Path::from_url_path(url.path())
        .map_err(|error| Error::invalid(format!("lake.url `{url}`: its path is not a valid prefix")).with_source(error))
}
