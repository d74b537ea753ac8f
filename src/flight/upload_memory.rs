//! Reserves memory for the messages of an event upload before each message is read, and releases the memory when the
//! events are committed.
//!
//! A [`MessageReservation`] counts toward `ingest.queue_bytes_max`, which limits the whole server. Reserving memory
//! fails with `Limited` if not enough memory becomes free in time. [`UploadMemory`] collects the reservations for the
//! messages in the next group of batches, until the group takes them to [`Writer::submit`].
//!
//! An upload that is faster than the lake waits for its own commits, so at most `bytes_max` of the upload is in memory.
//! This wait has no time limit, because every commit ends eventually.
//!
//! **Invariant:** the values of a dictionary stay in memory until they are replaced or the upload ends. The reservation
//! for these values is held for the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::ingest::{MemoryReservation, Writer};

/// The number of bytes per permit. Permits are acquired as 32-bit counts, so one permit per byte would limit the memory
/// to 4 GiB.
const PERMIT_BYTES: usize = 1024;

/// The memory for one upload.
pub(super) struct UploadMemory {
    writer: Arc<Writer>,
    /// The permits of the upload's own limit.
    permits: Arc<Semaphore>,
    permits_max: u32,
    read: Mutex<ReadMessages>,
}

/// The reservations for messages that have been read.
#[derive(Default)]
struct ReadMessages {
    /// The reservation for the messages that are not in a group yet.
    batches: Option<MessageReservation>,
    /// The reservations for the dictionaries in use, by dictionary id.
    dictionaries: HashMap<i64, MessageReservation>,
}

/// Memory that is reserved for messages. Dropping the reservation releases the memory.
pub(super) struct MessageReservation {
    /// The memory that counts toward the server's limit.
    reservation: MemoryReservation,
    /// The permits that count toward the upload's own limit.
    upload_permit: OwnedSemaphorePermit,
}

/// The memory that a decoded message takes in addition to the message itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DecodedSize {
    /// The decompressed size of the compressed buffers.
    pub(super) expanded_bytes: usize,
    /// The id of the dictionary that the message defines. The dictionary's values stay in memory until another message
    /// replaces them. `None` for a message that contains rows.
    pub(super) dictionary: Option<i64>,
}

impl UploadMemory {
    /// Creates the memory for an upload that may use at most `bytes_max` bytes at a time.
    pub(super) fn new(writer: Arc<Writer>, bytes_max: usize) -> Self {
        let permits_max = permits_for(bytes_max);
        let permits = Arc::new(Semaphore::new(permits_max as usize));
        Self { writer, permits, permits_max, read: Mutex::default() }
    }

    /// Reserves `bytes` bytes for a message.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<MessageReservation> {
        // A message that is larger than the upload's limit reserves the whole limit.
        let count = permits_for(bytes).min(self.permits_max);
        let upload_permit = Arc::clone(&self.permits).acquire_many_owned(count).await;
        let upload_permit = upload_permit
            .map_err(|closed| Error::internal("the memory semaphore of an upload is closed").with_source(closed))?;
        let mut reservation = self.writer.reservation();
        reservation.resize(bytes).await?;
        Ok(MessageReservation { reservation, upload_permit })
    }

    /// Keeps the reservation for a message that was read, and reserves memory for its decompressed buffers.
    pub(super) async fn hold(&self, mut message: MessageReservation, size: DecodedSize) -> Result<()> {
        if size.expanded_bytes > 0 {
            let mut more = self.writer.reservation();
            more.resize(size.expanded_bytes).await?;
            message.reservation.merge(more);
        }
        let mut read = self.lock();
        let of_batches = match size.dictionary {
            // Batches in the current group may still use the replaced dictionary, so its reservation moves to the
            // group.
            Some(id) => read.dictionaries.insert(id, message.without_upload_permit()),
            None => Some(message),
        };
        match (&mut read.batches, of_batches) {
            (Some(batches), Some(more)) => batches.merge(more),
            (batches @ None, more) => *batches = more,
            (Some(_), None) => {}
        }
        Ok(())
    }

    /// Takes the reservations for the messages that were read since the last call, except those for dictionaries.
    pub(super) fn take(&self) -> Option<MessageReservation> {
        self.lock().batches.take()
    }

    fn lock(&self) -> MutexGuard<'_, ReadMessages> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MessageReservation {
    /// Returns the reservation in the ingest queue and the permits of the upload's own limit. The caller must hold both
    /// until the events are committed.
    pub(super) fn into_parts(self) -> (MemoryReservation, OwnedSemaphorePermit) {
        (self.reservation, self.upload_permit)
    }

    fn merge(&mut self, other: Self) {
        self.reservation.merge(other.reservation);
        self.upload_permit.merge(other.upload_permit);
    }

    /// Releases the permits of the upload's own limit. A dictionary would hold these permits until the upload ends, so
    /// a message that needs the permits would wait forever.
    fn without_upload_permit(mut self) -> Self {
        drop(self.upload_permit.split(self.upload_permit.num_permits()));
        self
    }
}

fn permits_for(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES))
        .unwrap_or(u32::MAX)
        .min(Semaphore::MAX_PERMITS.try_into().unwrap_or(u32::MAX))
}
