//! The object store behind the lake: one URL becomes one client with bounded retries.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

use crate::config::LakeConfig;
use crate::error::Result;

/// An object store and the prefix in it under which all tables lie.
#[derive(Debug, Clone)]
pub struct Store {
    /// The client of the whole store (bucket, file system root).
    pub objects: Arc<dyn ObjectStore>,
    /// The URL of the root (`s3://bucket/`, `file:///`), under which a query engine registers `objects`.
    pub root: Url,
    /// The prefix of the lake in it.
    pub prefix: Path,
}

impl Store {
    /// Opens `file://`, `s3://` or `memory://`. A missing local folder is made.
    pub fn open(config: &LakeConfig) -> Result<Self> {
        let _ = config;
        todo!()
    }

    /// Wraps a store that exists already (tests with faults).
    pub fn wrap(objects: Arc<dyn ObjectStore>, root: Url, prefix: Path) -> Self {
        Self { objects, root, prefix }
    }
}
