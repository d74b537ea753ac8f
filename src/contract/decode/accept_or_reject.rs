//! Accepts or rejects each event that a row decoder has read. The row of an accepted event is kept in the batch
//! builder. The row of a rejected event is dropped, and a [`Reject`] is recorded.
//!
//! ```text
//!   protobuf | json ─ fill ─► BatchBuilder ─ check ─┬─► EventBatch
//!                                                   └─► Reject (the event's bytes and the first error)
//! ```
//!
//! The Arrow decoder works column by column instead. It collects [`RejectedRows`] and removes these rows from the batch
//! at the end.
//!
//! **Invariant:** no column contains a value of a rejected event.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::key_columns;
use super::reject_reason::{Reject, RejectCause};
use crate::contract::columns::batch_builder::BatchBuilder;
use crate::contract::{Contract, DecodeOptions, Decoded, Owner, TenantId};
use crate::error::{Error, Result};

/// The maximum number of events in one body. This limits the memory of a decoded body, because even an event of a few
/// bytes takes space in every column.
pub(in crate::contract) const BODY_EVENTS_MAX: u64 = 1 << 20;
/// The maximum number of rejects in one body. A body with more rejects is refused as a whole, and none of its events
/// are stored.
pub(in crate::contract) const BODY_REJECTS_MAX: usize = 1 << 16;

/// Collects the rejects of one body and counts its events.
#[derive(Debug)]
pub(in crate::contract) struct EventCollector<'a> {
    contract: &'a Contract,
    options: &'a DecodeOptions,
    body: &'a Bytes,
    rejects: Vec<Reject>,
    /// The number of events so far, which is also the index of the next event.
    index: u64,
}

impl<'a> EventCollector<'a> {
    pub(in crate::contract) fn new(contract: &'a Contract, body: &'a Bytes, options: &'a DecodeOptions) -> Self {
        Self { contract, options, body, rejects: Vec::new(), index: 0 }
    }

    /// Checks the current row, which was decoded from `range` of the body, and then keeps or rejects it.
    pub(in crate::contract) fn accept_or_reject(
        &mut self,
        builder: &mut BatchBuilder<'a>,
        range: Range<usize>,
    ) -> Result<()> {
        builder.set_defaults(self.contract);
        let cause = match builder.take_cause() {
            _ if range.len() > self.options.event_bytes_max => {
                Some(RejectCause::too_large(range.len(), self.options.event_bytes_max))
            }
            Some(cause) => Some(cause),
            None => key_columns::row(self.contract, self.options, builder),
        };
        match cause {
            Some(cause) => self.reject(builder, range, cause),
            None => {
                builder.keep()?;
                self.count()
            }
        }
    }

    /// Drops the current row, and records a reject. The reject contains the bytes of the event, which are `range` of
    /// the body.
    #[cold]
    pub(in crate::contract) fn reject(
        &mut self,
        builder: &mut BatchBuilder<'a>,
        range: Range<usize>,
        cause: RejectCause,
    ) -> Result<()> {
        let tenant = match &self.options.owner {
            Owner::Tenant(tenant) => Some(tenant.clone()),
            Owner::PerEvent => parse_tenant(builder.text_of(self.contract.tenant)),
        };
        builder.drop();
        let RejectCause { reason, detail } = cause;
        push_reject(
            &mut self.rejects,
            Reject { index: self.index, tenant, bytes: self.body.slice(range), reason, detail },
        )?;
        self.count()
    }

    /// Finishes the accepted rows and returns them with the rejects.
    pub(in crate::contract) fn finish(self, builder: BatchBuilder<'a>) -> Result<Decoded> {
        Ok(Decoded { batch: builder.finish(self.contract, self.options)?, rejects: self.rejects })
    }

    fn count(&mut self) -> Result<()> {
        self.index += 1;
        if self.index > BODY_EVENTS_MAX { Err(too_many_events()) } else { Ok(()) }
    }
}

/// The rejected rows of a batch. Each has the cause that was found first.
#[derive(Debug, Default)]
pub(in crate::contract) struct RejectedRows(BTreeMap<usize, RejectCause>);

impl RejectedRows {
    /// Records a cause for a row, unless the row already has one. Does nothing if more than [`BODY_REJECTS_MAX`] rows
    /// have been rejected, because the whole body will be refused.
    pub(in crate::contract) fn add(&mut self, row: usize, cause: impl FnOnce() -> RejectCause) {
        if self.0.len() <= BODY_REJECTS_MAX {
            self.0.entry(row).or_insert_with(cause);
        }
    }

    /// Returns true if the row is rejected.
    pub(in crate::contract) fn contains(&self, row: usize) -> bool {
        self.0.contains_key(&row)
    }

    /// Returns the rejected rows and their causes, in row order.
    pub(in crate::contract) fn iter(&self) -> impl Iterator<Item = (usize, &RejectCause)> {
        self.0.iter().map(|(row, cause)| (*row, cause))
    }

    /// Returns true if no row is rejected.
    pub(in crate::contract) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of rejected rows.
    pub(in crate::contract) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Parses a tenant id. Returns `None` if the bytes are missing or not a valid tenant id.
fn parse_tenant(bytes: Option<&[u8]>) -> Option<TenantId> {
    TenantId::parse(std::str::from_utf8(bytes?).ok()?).ok()
}

/// Adds a reject. Returns an `Invalid` error if the body already has [`BODY_REJECTS_MAX`] rejects.
pub(in crate::contract) fn push_reject(rejects: &mut Vec<Reject>, reject: Reject) -> Result<()> {
    if rejects.len() == BODY_REJECTS_MAX {
        let (reason, detail) = (reject.reason.as_str(), &reject.detail);
        return Err(Error::invalid(format!(
            "the body has more than {BODY_REJECTS_MAX} invalid events: fix them before sending the body again (the last \
             one was rejected with {reason}: {detail})"
        )));
    }
    rejects.push(reject);
    Ok(())
}

pub(in crate::contract) fn too_many_events() -> Error {
    Error::limited(format!("the body has more than {BODY_EVENTS_MAX} events: send smaller bodies"))
}
