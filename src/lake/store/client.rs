//! The object store behind the lake: one URL becomes one client with bounded retries.
//!
//! In: the `[lake]` section. Out: a [`Store`]: a client of the whole bucket or file system, and the prefix in it under
//! which every table has its folder.
//!
//! **Invariant:** a client can put an object only where there is none: that is what makes a commit atomic. Stores without
//! a conditional put are refused by their first commit.

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

/// An object store and the prefix in it under which all tables lie.
#[derive(Debug, Clone)]
pub struct Store {
    /// The client of the whole store (bucket, file system root).
    pub objects: Arc<dyn ObjectStore>,
    /// The URL of the root (`s3://bucket/`, `file:///`), under which a query engine registers `objects`.
    pub root: Url,
    /// The prefix of the lake in it.
    pub prefix: Path,
    /// What stamps commits and files.
    pub clock: Clock,
}

impl Store {
    /// Opens `file://`, `s3://` or `memory://`. A missing local folder is made; each `memory://` is a lake of its own.
    /// For S3 the usual `AWS_*` variables and instance credentials count, and `lake.options` override them.
    pub fn open(config: &LakeConfig) -> Result<Self> {
        let url = Url::parse(&config.url)
            .map_err(|error| Error::invalid(format!("lake.url `{}` is no URL", config.url)).with_source(error))?;
        match url.scheme() {
            "memory" => Ok(Self::wrap(Arc::new(InMemory::new()), root_of(&url), prefix_of(&url)?)),
            "file" => open_folder(&url),
            "s3" => open_bucket(&url, config),
            other => Err(Error::invalid(format!("lake.url: unknown scheme `{other}`, use file, s3 or memory"))),
        }
    }

    /// Wraps a store that exists already (tests with faults).
    pub fn wrap(objects: Arc<dyn ObjectStore>, root: Url, prefix: Path) -> Self {
        Self { objects, root, prefix, clock: Clock::System }
    }

    /// The same store, telling the time by `clock`.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The folder of a table.
    pub(in crate::lake) fn folder(&self, table: &str) -> Path {
        self.prefix.clone().join(table)
    }

    /// The same as a path of this machine, if the store is one of its folders.
    pub(in crate::lake) fn local(&self, folder: &Path) -> Option<PathBuf> {
        (self.root.scheme() == "file").then(|| self.url(folder).ok()?.to_file_path().ok())?
    }

    /// The URL of a folder in this store, ending in a slash.
    pub(in crate::lake) fn url(&self, folder: &Path) -> Result<Url> {
        let mut url = self.root.clone();
        url.path_segments_mut()
            .map_err(|()| Error::invalid(format!("lake.url: `{}` cannot hold folders", self.root)))?
            .pop_if_empty()
            .extend(folder.parts().map(|part| part.as_ref().to_owned()))
            .push("");
        Ok(url)
    }
}

/// What a failed request to the store means for the caller; `what` names the object.
pub(in crate::lake) fn store_error(what: impl std::fmt::Display, error: object_store::Error) -> Error {
    let answer = match &error {
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            Error::unsupported(format!("{what}: the object store cannot do that (commits need conditional puts)"))
        }
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Error::unavailable(format!("{what}: the object store refuses our credentials"))
        }
        object_store::Error::NotFound { .. } => Error::unavailable(format!("{what}: not in the object store")),
        _ if is_full(&error) => Error::unavailable(format!(
            "{what}: the disk of the lake is full, or its quota is used up: free space on it, then writing goes on by itself"
        )),
        _ => Error::unavailable(format!("{what}: the object store does not answer as it should")),
    };
    answer.with_source(error)
}

/// Whether a local disk had no room.
fn is_full(error: &object_store::Error) -> bool {
    let causes = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |cause| cause.source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
    })
}

fn open_folder(url: &Url) -> Result<Store> {
    let folder = url
        .to_file_path()
        .map_err(|()| Error::invalid(format!("lake.url `{url}` is no local path, use file:///path")))?;
    std::fs::create_dir_all(&folder).map_err(|error| {
        Error::invalid(format!("lake.url: cannot make the folder {}", folder.display())).with_source(error)
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
            Error::invalid(format!("lake.options: unknown option `{key}`, use names like `aws_region`"))
                .with_source(error)
        })?;
        builder = builder.with_config(key, value);
    }
    // Connections are shared, so that all of them are served by the runtime that opened the store. One that a query has made
    // would otherwise be served by the threads of queries, and a commit that uses it again would wait for those.
    if let Ok(runtime) = Handle::try_current() {
        builder = builder.with_http_connector(SpawnedReqwestConnector::new(runtime));
    }
    let bucket = builder.build().map_err(|error| {
        Error::invalid(format!("lake.url `{url}` and lake.options name no bucket")).with_source(error)
    })?;
    Ok(Store::wrap(Arc::new(bucket), root_of(url), prefix_of(url)?))
}

fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// The URL without its path, query and fragment.
fn root_of(url: &Url) -> Url {
    let mut root = url.clone();
    root.set_path("/");
    root.set_query(None);
    root.set_fragment(None);
    root
}

fn prefix_of(url: &Url) -> Result<Path> {
    Path::from_url_path(url.path())
        .map_err(|error| Error::invalid(format!("lake.url `{url}`: its path cannot be a prefix")).with_source(error))
}
