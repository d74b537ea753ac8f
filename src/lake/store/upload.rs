//! Stores an object of unknown size in parts, so that it is never in memory as a whole.
//!
//! All parts except the last have the same size, which some stores require. An object that is smaller than one part is
//! stored with a single put.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};

use crate::error::{Error, Result};
use crate::lake::store::client::store_error;

/// The size of a part, in bytes. S3 requires at least 5 MiB.
const PART_BYTES: usize = 8 << 20;

/// An object that is being stored. If it is neither completed nor aborted, its parts may remain in the store until the
/// store itself deletes them.
#[derive(Debug)]
pub(crate) struct FileUpload {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    upload: Option<Box<dyn MultipartUpload>>,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
}

impl FileUpload {
    pub(in crate::lake) fn new(objects: &Arc<dyn ObjectStore>, path: Path) -> Self {
        let objects = Arc::clone(objects);
        Self { objects, path, upload: None, waiting: VecDeque::new(), waiting_bytes: 0 }
    }

    /// Appends bytes. Returns when at most one part has not been stored.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(bytes);
        while self.waiting_bytes >= PART_BYTES {
            let part = self.next_part(PART_BYTES);
            let upload = match &mut self.upload {
                Some(upload) => upload,
                none => none.insert(self.objects.put_multipart(&self.path).await.map_err(failed(&self.path))?),
            };
            upload.put_part(part).await.map_err(failed(&self.path))?;
        }
        Ok(())
    }

    /// Stores the last part. When this returns, the object is durable.
    pub(crate) async fn complete(mut self) -> Result<()> {
        let last = self.next_part(self.waiting_bytes);
        match &mut self.upload {
            None => self.objects.put(&self.path, last).await.map(drop).map_err(failed(&self.path)),
            Some(upload) => {
                if last.content_length() > 0 {
                    upload.put_part(last).await.map_err(failed(&self.path))?;
                }
                upload.complete().await.map(drop).map_err(failed(&self.path))
            }
        }
    }

    /// Deletes the stored parts, on a best-effort basis.
    pub(crate) async fn abort(mut self) {
        if let Some(upload) = &mut self.upload
            && let Err(error) = upload.abort().await
        {
            tracing::debug!(path = %self.path, %error, "cannot delete the parts of an unfinished file");
        }
    }

    /// Returns the number of bytes that have not been stored.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Removes the next bytes. At least this many must be waiting.
    fn next_part(&mut self, length: usize) -> PutPayload {
        let (mut part, mut missing) = (Vec::new(), length);
        while missing > 0 {
            let Some(mut bytes) = self.waiting.pop_front() else { break };
            if bytes.len() > missing {
                self.waiting.push_front(bytes.split_off(missing));
            }
            missing -= bytes.len();
            part.push(bytes);
        }
        self.waiting_bytes -= length;
        PutPayload::from_iter(part)
    }
}

fn failed(path: &Path) -> impl Fn(object_store::Error) -> Error {
    move |error| store_error(path, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::tests::stores;

    #[tokio::test]
    async fn objects_of_any_size_are_stored_completely() {
        for (store, _folder) in stores() {
            for pieces in [&[][..], &[1], &[PART_BYTES], &[PART_BYTES - 1, 2], &[3, 3 * PART_BYTES, 5, PART_BYTES]] {
                let path = store.folder("calls").join(format!("{}.parquet", pieces.len()));
                let mut upload = FileUpload::new(&store.objects, path.clone());
                let (mut expected, mut next) = (Vec::new(), 0_u8);
                for length in pieces {
                    let bytes: Vec<u8> =
                        std::iter::repeat_with(|| (next, next = next.wrapping_add(7)).0).take(*length).collect();
                    expected.extend_from_slice(&bytes);
                    upload.write(bytes.into()).await.unwrap();
                    assert!(upload.waiting_bytes() < PART_BYTES);
                }
                upload.complete().await.unwrap();
                let stored = store.objects.get(&path).await.unwrap().bytes().await.unwrap();
                assert!(stored == expected, "{pieces:?}");
            }
        }
    }
}
