//! What becomes of each event of a body: a row of the sheet, or a reject.
//!
//! ```text
//!   wire | json ─ fill ─► Sheet ─ check ─┬─► EventBatch
//!                                        └─► Reject (its bytes, the first fault)
//! ```
//!
//! **Invariant:** an event with a fault leaves nothing in any column.

use std::ops::Range;

use bytes::Bytes;

use super::check;
use super::reject::{Reject, RejectCause};
use crate::contract::columns::batch_builder::BatchBuilder;
use crate::contract::{Contract, Decoded, Owner, Stamp, TenantId};
use crate::error::{Error, Result};

/// Events in one body: each costs about as many bytes in memory as its columns have, however small it was sent.
pub(in crate::contract) const BODY_EVENTS_MAX: u64 = 1 << 20;
/// Bad events in one body; past it the body is refused as a whole, and stays with its sender.
pub(in crate::contract) const BODY_REJECTS_MAX: usize = 1 << 16;

/// The bad events of one body, and how many there were of both.
#[derive(Debug)]
pub(in crate::contract) struct Acceptor<'a> {
    contract: &'a Contract,
    stamp: &'a Stamp,
    body: &'a Bytes,
    rejects: Vec<Reject>,
    /// Events met so far: the index of the next one.
    index: u64,
}

impl<'a> Acceptor<'a> {
    pub(in crate::contract) fn new(contract: &'a Contract, body: &'a Bytes, stamp: &'a Stamp) -> Self {
        Self { contract, stamp, body, rejects: Vec::new(), index: 0 }
    }

    /// Takes the open row, which was read from `place` in the body: checks it, and keeps or rejects it.
    pub(in crate::contract) fn take(&mut self, builder: &mut BatchBuilder<'a>, place: Range<usize>) -> Result<()> {
        builder.fall_back(self.contract);
        let fault = match builder.fault() {
            _ if place.len() > self.stamp.event_bytes_max => {
                Some(RejectCause::too_large(place.len(), self.stamp.event_bytes_max))
            }
            Some(fault) => Some(fault),
            None => check::row(self.contract, self.stamp, builder),
        };
        match fault {
            Some(fault) => self.refuse(builder, place, fault),
            None => {
                builder.keep()?;
                self.count()
            }
        }
    }

    /// Rejects the bytes at `place`; the open row holds what was decoded of them, and is dropped.
    #[cold]
    pub(in crate::contract) fn refuse(
        &mut self,
        builder: &mut BatchBuilder<'a>,
        place: Range<usize>,
        fault: RejectCause,
    ) -> Result<()> {
        let tenant = match &self.stamp.owner {
            Owner::Tenant(tenant) => Some(tenant.clone()),
            Owner::PerEvent => named(builder.text_of(self.contract.tenant)),
        };
        builder.drop();
        let RejectCause { reason, detail } = fault;
        refuse(&mut self.rejects, Reject { index: self.index, tenant, bytes: self.body.slice(place), reason, detail })?;
        self.count()
    }

    pub(in crate::contract) fn finish(self, builder: BatchBuilder<'a>) -> Result<Decoded> {
        Ok(Decoded { batch: builder.finish(self.contract, self.stamp)?, rejects: self.rejects })
    }

    fn count(&mut self) -> Result<()> {
        self.index += 1;
        if self.index > BODY_EVENTS_MAX { Err(too_many_events()) } else { Ok(()) }
    }
}

/// The tenant that these bytes name, if they name one.
fn named(bytes: Option<&[u8]>) -> Option<TenantId> {
    TenantId::parse(std::str::from_utf8(bytes?).ok()?).ok()
}

/// Adds a reject, or says that the body has too many.
pub(in crate::contract) fn refuse(rejects: &mut Vec<Reject>, reject: Reject) -> Result<()> {
    if rejects.len() == BODY_REJECTS_MAX {
        let (reason, detail) = (reject.reason.as_str(), &reject.detail);
        let last = format!("the last one is {reason}: {detail}");
        return Err(Error::invalid(format!("the body has more than {BODY_REJECTS_MAX} bad events; {last}")));
    }
    rejects.push(reject);
    Ok(())
}

pub(in crate::contract) fn too_many_events() -> Error {
    Error::limited(format!("the body has more than {BODY_EVENTS_MAX} events: send smaller bodies"))
}
