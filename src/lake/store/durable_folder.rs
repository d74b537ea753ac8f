//! A local folder as an object store with durable puts.
//!
//! `object_store`'s `LocalFileSystem` leaves written data in the page cache. With this store, a put returns only after
//! the file and its directory entry are on disk. The file gets its final name only after it has been written
//! completely. All other operations are delegated to `LocalFileSystem`.
//!
//! A put makes two `fsync` calls, which take about 5 ms together. A group commit makes one put for many requests, so
//! the requests share this cost. A put in several parts makes the same two calls when it is completed.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use uuid::Uuid;

/// An object store over the whole local file system.
#[derive(Debug, Clone)]
pub(in crate::lake) struct DurableFolder {
    files: Arc<LocalFileSystem>,
}

impl DurableFolder {
    pub(in crate::lake) fn new() -> Self {
        Self { files: Arc::new(LocalFileSystem::new()) }
    }
}

/// Writes a file under a temporary name, syncs it to disk, and then gives it its final name.
fn put(path: &FilePath, payload: &PutPayload, replace: bool) -> io::Result<()> {
    let folder = path.parent().ok_or_else(|| io::Error::other("the path has no parent folder"))?;
    create_folder(folder)?;
    let staged = staged(path);
    let written = stage(&staged, payload).and_then(|()| match replace {
        true => std::fs::rename(&staged, path),
        // Fails if the file exists, so the put is conditional.
        false => std::fs::hard_link(&staged, path),
    });
    if written.is_err() || !replace {
        // A failed deletion is harmless: the leftover file is never listed, and its name is never reused.
        let _ = std::fs::remove_file(&staged);
    }
    written.and_then(|()| sync_folder(folder))
}

/// Returns a temporary name next to `path`. Listings skip it, because `object_store` treats a name that ends in `#` and
/// digits as an unfinished put.
fn staged(path: &FilePath) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{}", Uuid::new_v4().as_u128()));
    name.into()
}

/// Deletes staged files under `folder` that were written before `before_ms` (milliseconds since 1970), and returns
/// their number. If a process is killed during a put, it leaves such a file. The file is never listed or read.
pub(in crate::lake) fn sweep(folder: &FilePath, before_ms: i64) -> io::Result<usize> {
    let mut swept = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            swept += sweep(&entry.path(), before_ms)?;
        } else if kind.is_file() && is_staged(&entry.file_name()) {
            // The file may already be gone, because its writer may have renamed or deleted it.
            let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
            let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            if i64::try_from(modified).is_ok_and(|modified| modified < before_ms) {
                std::fs::remove_file(entry.path())?;
                swept += 1;
            }
        }
    }
    Ok(swept)
}

/// Returns true if [`staged`] created the name.
fn is_staged(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

fn stage(path: &FilePath, payload: &PutPayload) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    for chunk in payload {
        file.write_all(chunk)?;
    }
    file.sync_all()
}

/// Creates a folder and its parents, and syncs each to disk.
fn create_folder(folder: &FilePath) -> io::Result<()> {
    let missing: Vec<&FilePath> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    std::fs::create_dir_all(folder)?;
    missing.into_iter().rev().filter_map(FilePath::parent).try_for_each(sync_folder)
}

/// Syncs a folder's entries to disk. Only Unix requires this.
fn sync_folder(folder: &FilePath) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn put_error(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path: path.to_string(), source: error.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path: path.to_string(), source: error.into() },
        _ => Error::Generic { store: "folder", source: error.into() },
    }
}

impl fmt::Display for DurableFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "durable {}", self.files)
    }
}

#[async_trait::async_trait]
impl ObjectStore for DurableFolder {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let replace = match options.mode {
            PutMode::Create => false,
            PutMode::Overwrite => true,
            PutMode::Update(_) => return self.files.put_opts(path, payload, options).await,
        };
        let file = self.files.path_to_filesystem(path)?;
        tokio::task::spawn_blocking(move || put(&file, &payload, replace))
            .await?
            .map_err(|error| put_error(path, error))
            .map(|()| PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let file = self.files.path_to_filesystem(path)?;
        let folder = file.parent().map(FilePath::to_owned);
        let created = tokio::task::spawn_blocking(move || folder.as_deref().map_or(Ok(()), create_folder)).await?;
        created.map_err(|error| put_error(path, error))?;
        let inner = self.files.put_multipart_opts(path, options).await?;
        Ok(Box::new(DurableUpload { inner, path: path.clone(), file }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

/// A put in several parts. The file gets its final name when the put is completed, and `complete` returns only after
/// the file and its directory entry are on disk.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    file: PathBuf,
}

#[async_trait::async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let file = self.file.clone();
        let sync = move || {
            File::open(&file)?.sync_all()?;
            file.parent().map_or(Ok(()), sync_folder)
        };
        let synced = tokio::task::spawn_blocking(sync).await?;
        synced.map_err(|error| put_error(&self.path, error)).map(|()| result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn a_put_is_atomic_and_conditional() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = DurableFolder::new();
        let path = Path::from_absolute_path(temporary.path()).unwrap().join("a").join("b").join("c.json");
        let read = async || folder.get(&path).await.unwrap().bytes().await.unwrap();

        folder.put_opts(&path, "one".into(), PutMode::Create.into()).await.unwrap();
        let error = folder.put_opts(&path, "two".into(), PutMode::Create.into()).await.unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
        assert_eq!(read().await, "one");
        folder.put(&path, "three".into()).await.unwrap();
        assert_eq!(read().await, "three");

        let names: Vec<_> =
            std::fs::read_dir(temporary.path().join("a/b")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["c.json"], "no temporary file is left");
        std::fs::write(temporary.path().join("a/b/c.json#12"), "half").unwrap();
        let prefix = Path::from_absolute_path(temporary.path()).unwrap();
        let listed: Vec<_> = folder.list(Some(&prefix)).try_collect().await.unwrap();
        assert_eq!(
            listed.iter().map(|object| &object.location).collect::<Vec<_>>(),
            [&path],
            "unfinished puts are not listed"
        );
    }

    #[tokio::test]
    async fn a_put_in_parts_is_visible_only_when_it_is_completed() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = DurableFolder::new();
        let path = Path::from_absolute_path(temporary.path()).unwrap().join("a").join("b.parquet");
        for completes in [false, true] {
            let mut upload = folder.put_multipart(&path).await.unwrap();
            upload.put_part("one ".into()).await.unwrap();
            upload.put_part("two".into()).await.unwrap();
            assert!(folder.head(&path).await.is_err());
            if completes {
                upload.complete().await.unwrap();
                assert_eq!(folder.get(&path).await.unwrap().bytes().await.unwrap(), "one two");
            } else {
                upload.abort().await.unwrap();
            }
            let count = std::fs::read_dir(temporary.path().join("a")).unwrap().count();
            assert_eq!(count, usize::from(completes), "no temporary file is left");
        }
    }

    #[test]
    fn a_sweep_deletes_old_staged_files_only() {
        let temporary = tempfile::tempdir().unwrap();
        let day = temporary.path().join("event_date=2026-03-01");
        std::fs::create_dir(&day).unwrap();
        let names = ["part-1.parquet", "part-1.parquet#12", "part-2.parquet#x", "part-3.parquet#", "#7", "8"];
        for name in names {
            std::fs::write(day.join(name), "half").unwrap();
        }
        let remaining = || {
            let names = std::fs::read_dir(&day).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(sweep(temporary.path(), 0).unwrap(), 0, "new files are kept");
        assert_eq!(remaining().len(), names.len());
        assert_eq!(sweep(temporary.path(), i64::MAX).unwrap(), 2);
        assert_eq!(
            remaining(),
            ["8", "part-1.parquet", "part-2.parquet#x", "part-3.parquet#"].map(str::to_owned).into()
        );
        assert!(sweep(&day.join("nowhere"), 0).is_err());
    }

    #[tokio::test]
    async fn one_of_many_conditional_puts_wins() {
        let temporary = tempfile::tempdir().unwrap();
        let path = Path::from_absolute_path(temporary.path()).unwrap().join("entry.json");
        let folder = DurableFolder::new();
        let puts = (0..16).map(|number| {
            let (folder, path) = (folder.clone(), path.clone());
            async move { folder.put_opts(&path, number.to_string().into(), PutMode::Create.into()).await.is_ok() }
        });
        let won = futures::future::join_all(puts).await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
    }
}
