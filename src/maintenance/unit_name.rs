//! The name of a unit, under which servers agree on who merges it.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::error::Result;
use crate::lake::day_text;
use crate::maintenance::policy::Unit;

/// Returns a name such as `2026-03-01-2-93b885adfe0da089`: the day, the level, and a hash of the smallest tenant. The
/// units of one range get the same name on all servers, although servers may plan different files. The name contains no
/// tenant's name.
pub(super) fn unit_name(unit: &Unit) -> Result<String> {
    let mut hasher = SipHasher13::new();
    // Level-0 files may contain all tenants. Their smallest tenants differ, but their units are the same work.
    if unit.level > 1 {
        let tenants = unit.inputs.iter().filter_map(|file| file.tenants.as_ref());
        let least = tenants.map(|(least, _)| &**least).min().unwrap_or_default();
        hasher.write(least.as_bytes());
    }
    Ok(format!("{}-{}-{:016x}", day_text(unit.day)?, unit.level, hasher.finish()))
}
