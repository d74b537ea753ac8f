//! Checks of the key columns, for all formats: the tenant is the sender's, the time is plausible, the id is present.
//!
//! Each function takes one value and returns the fault, if any. Row decoders and the Arrow decoder share them.

use super::reject::{Reason, RejectCause};
use crate::clock::Micros;
use crate::contract::columns::batch_builder::BatchBuilder;
use crate::contract::{Contract, Owner, Stamp, TenantId};

/// Checks the key columns of the open row.
pub(in crate::contract) fn row(contract: &Contract, stamp: &Stamp, row: &BatchBuilder<'_>) -> Option<RejectCause> {
    let given = row.text_of(contract.tenant);
    // The fast path: decoding a row takes a few hundred nanoseconds, and nearly all rows pass here.
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

/// Checks that the sender may send events of this tenant.
pub(in crate::contract) fn tenant(contract: &Contract, stamp: &Stamp, given: Option<&str>) -> Option<RejectCause> {
    let name = &contract.columns[contract.tenant].name;
    let given = given.filter(|given| !given.is_empty());
    match (&stamp.owner, given) {
        (Owner::Tenant(_), None) => None,
        (Owner::Tenant(tenant), Some(given)) if tenant.as_str() == given => None,
        // The message names neither tenant, because either of them may read it.
        (Owner::Tenant(_), Some(_)) => Some(RejectCause::new(
            Reason::ForeignTenant,
            format!("column `{name}` names a tenant other than the sender's: omit it"),
        )),
        (Owner::PerEvent, None) => Some(RejectCause::new(
            Reason::MissingTenant,
            format!(
                "column `{name}` is missing or empty, and the sender has no tenant: set it to the owner of the event"
            ),
        )),
        (Owner::PerEvent, Some(given)) => {
            let fault = TenantId::check(given).err()?;
            Some(RejectCause::new(Reason::MissingTenant, format!("column `{name}`: {}", fault.message())))
        }
    }
}

/// Checks that the event has a plausible time.
pub(in crate::contract) fn time(contract: &Contract, stamp: &Stamp, given: Option<Micros>) -> Option<RejectCause> {
    let (reason, what) = match given {
        None => (Reason::MissingTime, "is missing"),
        Some(..0) => (Reason::TimeOutOfRange, "is before 1970: check its unit"),
        Some(micros) if micros > stamp.time_max => {
            (Reason::TimeOutOfRange, "is too far ahead of the server's clock: check its unit")
        }
        Some(_) => return None,
    };
    let name = &contract.columns[contract.time].name;
    Some(RejectCause::new(reason, format!("column `{name}` {what}")))
}

/// Checks that the event has an id.
pub(in crate::contract) fn id(contract: &Contract, given: Option<&[u8]>) -> Option<RejectCause> {
    if given.is_some_and(|id| !id.is_empty()) {
        return None;
    }
    let name = &contract.columns[contract.id].name;
    Some(RejectCause::new(Reason::MissingId, format!("column `{name}` is missing or empty")))
}
