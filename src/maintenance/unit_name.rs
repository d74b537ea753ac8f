//! The name of a unit, under which servers agree on who merges it.

use chrono::{DateTime, NaiveDate};
use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;

use crate::maintenance::policy::Unit;

/// Returns a name such as `2026-03-01-1-93b885adfe0da089`: the day, the level, and a hash of the smallest tenant. The
/// units of one range get the same name on all servers, although servers may plan different files. The name contains no
/// tenant's name.
pub(super) fn unit_name(unit: &Unit) -> String {
    let tenants = unit.inputs.iter().filter_map(|file| file.tenants.as_ref());
    let mut hasher = SipHasher13::new();
    // Level-0 files contain all tenants, and their smallest one differs.
    if unit.level > 1 && let Some(least) = tenants.map(|(least, _)| least).min() {
        hasher.write(least.as_bytes());
    }
    let day = DateTime::UNIX_EPOCH.date_naive() + chrono::Duration::days(i64::from(unit.day));
    let day: NaiveDate = day;
    format!("{day}-{}-{:016x}", unit.level, hasher.finish())
}
