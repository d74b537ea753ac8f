//! The memory of an event upload: reserved before each message is read, held until its events are committed.
//!
//! In: the length of the next message. Out: a [`Reserved`] share of `ingest.queue_bytes_max`, the limit of the whole
//! server, or `Limited` if none becomes free in time. Memory of messages read for the next group of batches collects
//! here until the group takes it to [`Writer::submit`].
//!
//! An upload that is faster than the lake waits for its own commits: at most `bytes_max` of it are in memory. That wait
//! has no time limit, because its own commits always end.
//!
//! **Invariant:** the values of a dictionary stay in memory until they are replaced or the upload ends, and so does
//! their share of the queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::upload::Claimed;
use crate::error::{Error, Result};
use crate::ingest::{MemoryReservation, Writer};

/// The allocation unit: a semaphore counts in 32 bits, so bytes are rounded up to this.
const UNIT_BYTES: usize = 1024;

/// The memory of an upload.
pub(super) struct UploadMemory {
    writer: Arc<Writer>,
    under_way: Arc<Semaphore>,
    units_max: u32,
    held: Mutex<MessageMemory>,
}

/// Memory of messages that are read but not yet in a group.
#[derive(Default)]
struct MessageMemory {
    messages: Option<Reserved>,
    dictionaries: HashMap<i64, Reserved>,
}

/// Reserved memory for messages; dropping it releases it.
pub(super) struct Reserved {
    /// The share of the server's limit.
    reservation: MemoryReservation,
    /// The share of the upload's own limit.
    under_way: OwnedSemaphorePermit,
}

impl UploadMemory {
    /// Memory for an upload with at most `bytes_max` in memory at once.
    pub(super) fn new(writer: Arc<Writer>, bytes_max: usize) -> Self {
        let units_max = units(bytes_max);
        let under_way = Arc::new(Semaphore::new(units_max as usize));
        Self { writer, under_way, units_max, held: Mutex::default() }
    }

    /// Reserves memory for a message of `bytes`.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Reserved> {
        // A message that is larger than the upload's limit takes all of it.
        let own = units(bytes).min(self.units_max);
        let under_way = Arc::clone(&self.under_way).acquire_many_owned(own).await;
        let under_way = under_way
            .map_err(|closed| Error::internal("the memory limit of an upload is closed").with_source(closed))?;
        let mut reservation = self.writer.reservation();
        reservation.resize(bytes).await?;
        Ok(Reserved { reservation, under_way })
    }

    /// Holds the memory of a message that was read, and of its decompressed buffers.
    pub(super) async fn hold(&self, mut reserved: Reserved, claimed: Claimed) -> Result<()> {
        if claimed.expanded_bytes > 0 {
            let mut more = self.writer.reservation();
            more.resize(claimed.expanded_bytes).await?;
            reserved.reservation.merge(more);
        }
        let mut held = self.lock();
        let passing = match claimed.dictionary {
            // Batches of the current group may still use the replaced values.
            Some(id) => held.dictionaries.insert(id, reserved.without_bound()),
            None => Some(reserved),
        };
        match (&mut held.messages, passing) {
            (Some(messages), Some(passing)) => messages.merge(passing),
            (messages @ None, passing) => *messages = passing,
            (Some(_), None) => {}
        }
        Ok(())
    }

    /// The memory of the messages read since the last call, without dictionaries.
    pub(super) fn take(&self) -> Option<Reserved> {
        self.lock().messages.take()
    }

    fn lock(&self) -> MutexGuard<'_, MessageMemory> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserved {
    /// Its share of the ingest queue, and what must be kept with it until the events are committed.
    pub(super) fn into_parts(self) -> (MemoryReservation, OwnedSemaphorePermit) {
        (self.reservation, self.under_way)
    }

    fn merge(&mut self, other: Self) {
        self.reservation.merge(other.reservation);
        self.under_way.merge(other.under_way);
    }

    /// The same without the upload's own limit: a dictionary would hold that for the length of the upload, and a
    /// message that waits for it would wait forever.
    fn without_bound(mut self) -> Self {
        drop(self.under_way.split(self.under_way.num_permits()));
        self
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES))
        .unwrap_or(u32::MAX)
        .min(Semaphore::MAX_PERMITS.try_into().unwrap_or(u32::MAX))
}
