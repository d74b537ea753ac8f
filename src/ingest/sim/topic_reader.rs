//! The topic readers in a schedule. Each server has one reader, which reads the partitions that are assigned to the
//! server.
//!
//! Like a real source, a reader loads the stored offsets of its partitions and stores batches of messages with a
//! [`SourceWriter`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::actors::{Actor, SimOutcome};
use super::schedule::Schedule;
use super::server::{ServerState, SimServer};
use crate::contract::{Format, Owner};
use crate::error::{Kind, Result};
use crate::ingest::source::{
    MessageBatch, Route, SourceWriter, StoredBatch, StoredOffsets, TenantResolution, TopicPartition,
};
use crate::ingest::testing::TABLE;

impl Schedule {
    /// Starts the next operation of a server's reader: to load offsets or to store a batch. Does nothing if the reader
    /// is busy or idle.
    pub(super) async fn read(&mut self, server: usize) {
        let SimServer { state: ServerState::Up(ingest), reader, .. } = &mut self.servers[server] else { return };
        if reader.busy || reader.idle_until > self.step {
            return;
        }
        let writer = SourceWriter::new(ingest.writer.clone(), route());
        reader.partitions.retain(|_, partition| partition.batches_left != Some(0));
        let unknown: Vec<usize> = reader
            .partitions
            .iter()
            .filter(|(_, partition)| partition.offsets.is_none())
            .map(|(number, _)| *number)
            .collect();
        if !unknown.is_empty() {
            reader.busy = true;
            let partitions: BTreeSet<TopicPartition> = unknown.iter().copied().map(topic_partition).collect();
            self.start_operation(Actor::Reader(server), async move {
                let loaded = writer.stored_offsets(partitions).await.map(|(offsets, _)| offsets);
                SimOutcome::OffsetsLoaded(unknown, loaded)
            })
            .await;
            return;
        }
        let (mut message_batch, mut offsets) = (MessageBatch::default(), BTreeMap::new());
        for (number, partition) in &mut reader.partitions {
            let messages = &self.partitions[*number];
            let stored = partition.offsets.unwrap_or_default();
            let first = usize::try_from(stored.table.unwrap_or(0)).unwrap();
            if first == messages.len() || self.random.percent(20) {
                continue;
            }
            let count = 1 + self.random.below(6);
            for (offset, message) in messages.iter().enumerate().skip(first).take(count) {
                let offset = i64::try_from(offset).unwrap();
                message_batch.push(
                    (topic_partition(*number), offset),
                    message.as_bytes(),
                    TenantResolution::PerEvent,
                    None,
                    Instant::now(),
                );
            }
            offsets.insert(topic_partition(*number), stored);
            partition.batches_left = partition.batches_left.map(|message_batches| message_batches - 1);
        }
        if offsets.is_empty() {
            return;
        }
        reader.busy = true;
        self.start_operation(Actor::Reader(server), async move {
            let partitions = offsets.keys().map(partition_number).collect();
            SimOutcome::BatchStored(partitions, writer.store(message_batch, &offsets).await)
        })
        .await;
    }

    /// Handles the result of loading offsets. After an error, the reader is idle for some steps.
    pub(super) fn offsets_loaded(
        &mut self,
        server: usize,
        partitions: &[usize],
        outcome: Result<BTreeMap<TopicPartition, StoredOffsets>>,
    ) {
        let reader = &mut self.servers[server].reader;
        reader.busy = false;
        let Ok(offsets) = outcome else {
            reader.idle_until = self.step + self.random.below(8);
            return;
        };
        for number in partitions {
            let Some(partition) = reader.partitions.get_mut(number) else { continue };
            partition.offsets = None;
        }
        for (topic_partition, offsets) in offsets {
            let number = partition_number(&topic_partition);
            if let Some(partition) = reader.partitions.get_mut(&number) {
                partition.offsets = Some(offsets);
            }
            self.stored[number] = self.stored[number].max(offsets.table.unwrap_or(0));
        }
    }

    /// Handles the result of storing a batch. After an error, the reader loads the offsets again.
    pub(super) fn batch_stored(&mut self, server: usize, partitions: &[usize], outcome: Result<StoredBatch>) {
        let reader = &mut self.servers[server].reader;
        reader.busy = false;
        match outcome {
            Ok(stored_batch) => self.offsets_loaded(server, &[], Ok(stored_batch.offsets)),
            Err(error) => {
                if !matches!(error.kind(), Kind::Unavailable | Kind::Conflict) {
                    self.failures.push(format!("reader {server} was refused: {error:?}"));
                }
                reader.idle_until = self.step + self.random.below(8);
                for number in partitions {
                    if let Some(partition) = reader.partitions.get_mut(number) {
                        partition.offsets = None;
                    }
                }
            }
        }
    }
}

fn topic_partition(partition: usize) -> TopicPartition {
    TopicPartition { topic: "calls".into(), partition: i32::try_from(partition).unwrap() }
}

fn partition_number(topic_partition: &TopicPartition) -> usize {
    usize::try_from(topic_partition.partition).unwrap()
}

fn route() -> Route {
    Route {
        source: "voice".to_owned(),
        table: TABLE.to_owned(),
        format: Format::Json,
        owner: Owner::PerEvent,
        reader: None,
        transform: None,
    }
}
