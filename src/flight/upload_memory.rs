//! Reserves memory for the messages of an event upload. Memory is reserved before a message is read, and released when
//! its events are committed.
//!
//! All [`MessageReservation`]s together are limited by `ingest.queue_bytes_max`, which applies to the whole server. If
//! not enough memory becomes free in time, a reservation fails with `Limited`. [`UploadMemory`] holds the reservations
//! for the next group of batches. Together with the group, they are passed to [`Writer::submit`].
//!
//! Each upload has its own limit, `bytes_max`. If a client sends events faster than the lake can store them, its upload
//! reaches this limit and waits for its own commits. This wait has no time limit, because every commit ends eventually.
//!
//! **Invariant:** the values of a dictionary stay in memory until they are replaced or the upload ends. The reservation
//! for these values is held until then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::ingest::{MemoryReservation, Writer};

/// The number of bytes per permit. Permits are acquired as 32-bit counts, so one permit per byte would limit the memory
/// to 4 GiB.
const PERMIT_BYTES: usize = 1024;

/// The memory reservations of one upload.
pub(super) struct UploadMemory {
    writer: Arc<Writer>,
    /// The permits for the upload's own limit.
    permits: Arc<Semaphore>,
    permits_max: u32,
    read: Mutex<ReadMessages>,
}

/// The reservations for messages that have been read.
#[derive(Default)]
struct ReadMessages {
    /// The reservation for messages whose batches are not in a group yet.
    batches: Option<MessageReservation>,
    /// The reservations for the dictionaries in use. The key is the id of the dictionary.
    dictionaries: HashMap<i64, MessageReservation>,
}

/// Memory that is reserved for messages. Dropping the reservation releases the memory.
pub(super) struct MessageReservation {
    /// The part of the server's limit that this reservation uses.
    reservation: MemoryReservation,
    /// The part of the upload's own limit that this reservation uses.
    upload_permit: OwnedSemaphorePermit,
}

/// The additional memory that a message takes when it has been decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DecodedSize {
    /// The decompressed size of all compressed buffers.
    pub(super) expanded_bytes: usize,
    /// The id of the dictionary that the message defines, or `None` for a message with rows. The values of a dictionary
    /// stay in memory until another message replaces them.
    pub(super) dictionary: Option<i64>,
}

impl UploadMemory {
    /// Creates an empty set of reservations for an upload that may reserve at most `bytes_max` bytes at a time.
    pub(super) fn new(writer: Arc<Writer>, bytes_max: usize) -> Self {
        let permits_max = permits_for(bytes_max);
        let permits = Arc::new(Semaphore::new(permits_max as usize));
        Self { writer, permits, permits_max, read: Mutex::default() }
    }

    /// Reserves `bytes` bytes for a message.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<MessageReservation> {
        // If a message is larger than the upload's limit, reserve the whole limit.
        let count = permits_for(bytes).min(self.permits_max);
        let upload_permit = Arc::clone(&self.permits).acquire_many_owned(count).await;
        let upload_permit = upload_permit
            .map_err(|closed| Error::internal("the memory semaphore of an upload is closed").with_source(closed))?;
        let mut reservation = self.writer.reservation();
        reservation.resize(bytes).await?;
        Ok(MessageReservation { reservation, upload_permit })
    }

    /// Keeps the reservation for a message that has been read. Also reserves memory for its decompressed buffers.
    pub(super) async fn hold(&self, mut message: MessageReservation, size: DecodedSize) -> Result<()> {
        if size.expanded_bytes > 0 {
            let mut more = self.writer.reservation();
            more.resize(size.expanded_bytes).await?;
            message.reservation.merge(more);
        }
        let mut read = self.lock();
        let of_batches = match size.dictionary {
            // Batches in the current group may still use the previous dictionary, so its reservation is added to the
            // group's.
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

    /// Takes the reservation for the messages that were read since the last call. Dictionaries are not included.
    pub(super) fn take(&self) -> Option<MessageReservation> {
        self.lock().batches.take()
    }

    fn lock(&self) -> MutexGuard<'_, ReadMessages> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MessageReservation {
    /// Returns the reservation in the ingest queue, and the permits for the upload's own limit. The caller must hold
    /// both until the events are committed.
    pub(super) fn into_parts(self) -> (MemoryReservation, OwnedSemaphorePermit) {
        (self.reservation, self.upload_permit)
    }

    fn merge(&mut self, other: Self) {
        self.reservation.merge(other.reservation);
        self.upload_permit.merge(other.upload_permit);
    }

    /// Releases the permits for the upload's own limit. A dictionary would otherwise hold them until the upload ends,
    /// and a message that needs them would wait forever.
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
