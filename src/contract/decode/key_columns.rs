//! Checks the key columns of an event: its tenant, time and id.
//!
//! Each function checks one value. It returns the cause if the event must be rejected, and `None` otherwise. The row
//! decoders and the Arrow decoder share these functions.

use super::reject_reason::{Reason, RejectCause};
use crate::clock::Micros;
use crate::contract::columns::batch_builder::BatchBuilder;
use crate::contract::schema::retention::date_text;
use crate::contract::{Contract, DecodeOptions, Owner, TenantId};

/// Checks the key columns of the row that the batch builder is building.
pub(in crate::contract) fn row(
    contract: &Contract,
    options: &DecodeOptions,
    row: &BatchBuilder<'_>,
) -> Option<RejectCause> {
    let given = row.text_of(contract.tenant);
    // This cheap check accepts nearly all rows, and only the others are checked in full. A full check of each row would
    // noticeably slow down decoding, which takes only a few hundred nanoseconds per row.
    let is_plain = match (&options.owner, given) {
        (Owner::Tenant(tenant), Some(given)) => tenant.as_str().as_bytes() == given,
        (Owner::Tenant(_), None) => true,
        (Owner::PerEvent, given) => given.is_some_and(TenantId::is_plain),
    };
    let other = || tenant(contract, options, given.and_then(|given| std::str::from_utf8(given).ok()));
    (if is_plain { None } else { other() })
        .or_else(|| {
            let tenant = || given.and_then(|given| std::str::from_utf8(given).ok());
            time(contract, options, row.int_of(contract.time), tenant)
        })
        .or_else(|| id(contract, row.text_of(contract.id)))
}

/// Checks that the event's tenant is valid, and that the sender may send events of that tenant.
pub(in crate::contract) fn tenant(
    contract: &Contract,
    options: &DecodeOptions,
    given: Option<&str>,
) -> Option<RejectCause> {
    let name = &contract.columns[contract.tenant].name;
    let given = given.filter(|given| !given.is_empty());
    match (&options.owner, given) {
        (Owner::Tenant(_), None) => None,
        (Owner::Tenant(tenant), Some(given)) if tenant.as_str() == given => None,
        // Users of either tenant may be able to read the error message, so the message names neither tenant.
        (Owner::Tenant(_), Some(_)) => Some(RejectCause::new(
            Reason::ForeignTenant,
            format!("column `{name}` names a tenant other than the sender's: omit the column"),
        )),
        (Owner::PerEvent, None) => Some(RejectCause::new(
            Reason::MissingTenant,
            format!(
                "column `{name}` is missing or empty, and the sender does not belong to a tenant: set the column to the event's tenant"
            ),
        )),
        (Owner::PerEvent, Some(given)) => {
            let error = TenantId::check(given).err()?;
            Some(RejectCause::new(Reason::MissingTenant, format!("column `{name}`: {}", error.message())))
        }
    }
}

/// Checks that the event has a time, that the time is plausible, and that the table still keeps events of this time.
/// `tenant` returns the tenant that the event names.
pub(in crate::contract) fn time<'t>(
    contract: &Contract,
    options: &DecodeOptions,
    given: Option<Micros>,
    tenant: impl FnOnce() -> Option<&'t str>,
) -> Option<RejectCause> {
    let name = &contract.columns[contract.time].name;
    let (reason, what) = match given {
        None => (Reason::MissingTime, "is missing"),
        Some(..0) => (Reason::TimeOutOfRange, "is before 1970: check its unit"),
        Some(micros) if micros > options.time_max => {
            (Reason::TimeOutOfRange, "is too far ahead of the server's clock: check its unit")
        }
        Some(micros) => {
            let owner = || match &options.owner {
                Owner::Tenant(tenant) => tenant.as_str(),
                Owner::PerEvent => tenant().unwrap_or_default(),
            };
            let (days, start) = contract.retention.expired(options.received, micros, owner)?;
            let detail = format!(
                "column `{name}` is before {} (UTC), and the table keeps events for {days} days: do not send older events",
                date_text(start)
            );
            return Some(RejectCause::new(Reason::TooOld, detail));
        }
    };
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
