//! What every event must be, however it came: owned by the sender, with a believable time and an id.
//!
//! Leaves: each takes one value and answers with the fault, if there is one. Rows and Arrow columns ask the same.

use super::reject::{Reason, RejectCause};
use crate::clock::Micros;
use crate::contract::columns::batch_builder::BatchBuilder;
use crate::contract::{Contract, Owner, Stamp, TenantId};

/// Checks the key columns of the open row.
pub(in crate::contract) fn row(contract: &Contract, stamp: &Stamp, row: &BatchBuilder<'_>) -> Option<RejectCause> {
    let given = row.text_of(contract.tenant);
    // Whole rows are decoded every few hundred nanoseconds: nearly all of them pass here.
    let is_plain = match (&stamp.owner, given) {
        (Owner::Tenant(tenant), Some(given)) => tenant.as_str().as_bytes() == given,
        (Owner::Tenant(_), None) => true,
        (Owner::PerEvent, given) => given.is_some_and(TenantId::is_plain),
    };
    let other = || tenant(contract, stamp, given.and_then(|given| std::str::from_utf8(given).ok()));
    (if is_plain { None } else { other() })
        .or_else(|| time(contract, stamp, row.int_of(contract.time)))
        .or_else(|| id(contract, row.text_of(contract.id)))
}

/// Whether the sender may send events of this tenant.
pub(in crate::contract) fn tenant(contract: &Contract, stamp: &Stamp, given: Option<&str>) -> Option<RejectCause> {
    let name = &contract.columns[contract.tenant].name;
    let given = given.filter(|given| !given.is_empty());
    match (&stamp.owner, given) {
        (Owner::Tenant(_), None) => None,
        (Owner::Tenant(tenant), Some(given)) if tenant.as_str() == given => None,
        // Neither tenant is repeated: the detail may be read by either.
        (Owner::Tenant(_), Some(_)) => Some(RejectCause::new(
            Reason::ForeignTenant,
            format!("column `{name}` names another tenant than the one it was sent for; leave it out"),
        )),
        (Owner::PerEvent, None) => Some(RejectCause::new(
            Reason::MissingTenant,
            format!("column `{name}` is missing or empty, and nothing else says whose the event is"),
        )),
        (Owner::PerEvent, Some(given)) => {
            let fault = TenantId::check(given).err()?;
            Some(RejectCause::new(Reason::MissingTenant, format!("column `{name}`: {}", fault.message())))
        }
    }
}

/// Whether the event has a believable time.
pub(in crate::contract) fn time(contract: &Contract, stamp: &Stamp, given: Option<Micros>) -> Option<RejectCause> {
    let (reason, what) = match given {
        None => (Reason::MissingTime, "is missing"),
        Some(..0) => (Reason::TimeOutOfRange, "is before 1970; is its unit right?"),
        Some(micros) if micros > stamp.time_max => {
            (Reason::TimeOutOfRange, "is too far ahead of the server's clock; is its unit right?")
        }
        Some(_) => return None,
    };
    let name = &contract.columns[contract.time].name;
    Some(RejectCause::new(reason, format!("column `{name}` {what}")))
}

/// Whether the event has an id.
pub(in crate::contract) fn id(contract: &Contract, given: Option<&[u8]>) -> Option<RejectCause> {
    if given.is_some_and(|id| !id.is_empty()) {
        return None;
    }
    let name = &contract.columns[contract.id].name;
    Some(RejectCause::new(Reason::MissingId, format!("column `{name}` is missing or empty")))
}
