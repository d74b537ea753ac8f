//! Accepts or rejects each decoded event: it becomes a row of the batch builder or a reject.
//!
//! ```text
//!   protobuf | json ─ fill ─► BatchBuilder ─ check ─┬─► EventBatch
//!                                                   └─► Reject (its bytes, the first fault)
//! ```
//!
//! **Invariant:** a rejected event leaves no values in any column.

use std::ops::Range;

use bytes::Bytes;

use super::check;
use super::reject::{Reject, RejectCause};
use crate::contract::columns::batch_builder::BatchBuilder;
use crate::contract::{Contract, Decoded, Owner, Stamp, TenantId};
use crate::error::{Error, Result};

/// The maximum number of events in one body. In memory, each takes the size of its columns, even if it was sent in
/// fewer bytes.
pub(in crate::contract) const BODY_EVENTS_MAX: u64 = 1 << 20;
/// The maximum number of rejects in one body. A body with more is refused as a whole, and nothing of it is stored.
pub(in crate::contract) const BODY_REJECTS_MAX: usize = 1 << 16;

/// Collects the rejects of one body and counts its events.
#[derive(Debug)]
pub(in crate::contract) struct Acceptor<'a> {
    contract: &'a Contract,
    stamp: &'a Stamp,
    body: &'a Bytes,
    rejects: Vec<Reject>,
    /// The number of events so far, which is the index of the next one.
    index: u64,
}

impl<'a> Acceptor<'a> {
    pub(in crate::contract) fn new(contract: &'a Contract, body: &'a Bytes, stamp: &'a Stamp) -> Self {
        Self { contract, stamp, body, rejects: Vec::new(), index: 0 }
    }

    /// Checks the open row, which was decoded from `range` of the body, and keeps or rejects it.
    pub(in crate::contract) fn take(&mut self, builder: &mut BatchBuilder<'a>, range: Range<usize>) -> Result<()> {
        builder.set_defaults(self.contract);
        let fault = match builder.fault() {
            _ if range.len() > self.stamp.event_bytes_max => {
                Some(RejectCause::too_large(range.len(), self.stamp.event_bytes_max))
            }
            Some(fault) => Some(fault),
            None => check::row(self.contract, self.stamp, builder),
        };
        match fault {
            Some(fault) => self.refuse(builder, range, fault),
            None => {
                builder.keep()?;
                self.count()
            }
        }
    }

    /// Rejects the bytes in `range` and drops the open row, which holds what was decoded from them.
    #[cold]
    pub(in crate::contract) fn refuse(
        &mut self,
        builder: &mut BatchBuilder<'a>,
        range: Range<usize>,
        fault: RejectCause,
    ) -> Result<()> {
        let tenant = match &self.stamp.owner {
            Owner::Tenant(tenant) => Some(tenant.clone()),
            Owner::PerEvent => parse_tenant(builder.text_of(self.contract.tenant)),
        };
        builder.drop();
        let RejectCause { reason, detail } = fault;
        refuse(&mut self.rejects, Reject { index: self.index, tenant, bytes: self.body.slice(range), reason, detail })?;
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

/// Parses the bytes as a tenant id.
fn parse_tenant(bytes: Option<&[u8]>) -> Option<TenantId> {
    TenantId::parse(std::str::from_utf8(bytes?).ok()?).ok()
}

/// Adds a reject. `Invalid` if the body has too many.
pub(in crate::contract) fn refuse(rejects: &mut Vec<Reject>, reject: Reject) -> Result<()> {
    if rejects.len() == BODY_REJECTS_MAX {
        let (reason, detail) = (reject.reason.as_str(), &reject.detail);
        let last = format!("the last one is {reason}: {detail}");
        return Err(Error::invalid(format!("the body has more than {BODY_REJECTS_MAX} invalid events; {last}")));
    }
    rejects.push(reject);
    Ok(())
}

pub(in crate::contract) fn too_many_events() -> Error {
    Error::limited(format!("the body has more than {BODY_EVENTS_MAX} events: send smaller bodies"))
}
