//! [`Retention`]: for how long a table keeps events.
//!
//! Whole UTC days expire. A row is expired if its event time is before the start of the UTC day that is `retention_days`
//! before the current one. With a retention of 30 days, a row of March 1 is kept until the end of March 31, and expires
//! at midnight. A quarantine entry expires by the time at which its event was rejected.
//!
//! ```text
//!   Retention, time ─► ExpiryBounds ─┬─► query: the tenant barrier hides expired rows
//!                                    ├─► ingest: rejects expired events, lists no expired quarantine entries
//!                                    └─► maintenance: removes expired files
//! ```
//!
//! **Invariant:** this file contains the only definition of an expired row.

use std::collections::BTreeMap;

use chrono::DateTime;

use crate::clock::{DAY, Micros};
use crate::config::TableConfig;
use crate::contract::TenantId;
use crate::error::Result;

/// For how long a table keeps events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// The number of days for all tenants. `None` if events are kept forever.
    days: Option<u32>,
    /// The number of days for each tenant with a shorter retention.
    tenants: BTreeMap<String, u32>,
    /// The smallest number of days. No younger event is expired.
    days_min: Option<u32>,
}

/// The times before which rows are expired, at one moment. All times are the start of a UTC day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpiryBounds {
    /// Rows with an earlier event time are expired, whatever their tenant. `None` if events are kept forever.
    pub all: Option<Micros>,
    /// For each tenant with a shorter retention, the time before which the tenant's rows are expired.
    pub tenants: BTreeMap<String, Micros>,
}

impl Retention {
    /// Creates a retention of `days` for all tenants. 0 keeps events forever.
    pub fn days(days: u32) -> Self {
        let days = (days > 0).then_some(days);
        Self { days, tenants: BTreeMap::new(), days_min: days }
    }

    /// Reads the retention of a table. The configuration has already checked the numbers of days. Returns `Invalid` if
    /// the name of a tenant is not valid.
    pub(super) fn of(config: &TableConfig) -> Result<Self> {
        for tenant in config.retention_tenants.keys() {
            TenantId::check(tenant).map_err(|error| error.at("retention_tenants"))?;
        }
        let table = Self::days(config.retention_days);
        let tenants = config.retention_tenants.clone();
        let days_min = table.days.into_iter().chain(tenants.values().copied()).min();
        Ok(Self { tenants, days_min, ..table })
    }

    /// Returns the times before which rows are expired at the time `now`.
    pub fn bounds(&self, now: Micros) -> ExpiryBounds {
        let start = |days: u32| start_of_day(now, days);
        ExpiryBounds {
            all: self.days.map(start),
            tenants: self.tenants.iter().map(|(tenant, days)| (tenant.clone(), start(*days))).collect(),
        }
    }

    /// Returns the retention of a tenant in days and the start of the oldest day that is kept, if an event of this
    /// tenant with the event time `time` is expired at the time `now`. `tenant` is needed only for old events.
    pub(in crate::contract) fn expired<'t>(
        &self,
        now: Micros,
        time: Micros,
        tenant: impl FnOnce() -> &'t str,
    ) -> Option<(u32, Micros)> {
        if time >= start_of_day(now, self.days_min?) {
            return None;
        }
        let own = self.tenants.get(tenant()).copied();
        let days = own.into_iter().chain(self.days).min()?;
        let start = start_of_day(now, days);
        (time < start).then_some((days, start))
    }
}

impl ExpiryBounds {
    /// Returns the time before which the rows of `tenant` are expired, or `None` if they are kept forever.
    pub fn of_tenant(&self, tenant: &str) -> Option<Micros> {
        self.all.max(self.tenants.get(tenant).copied())
    }

    /// Returns true if all rows of a UTC day are expired, whatever their tenant. `day` is in days since 1970-01-01.
    pub fn includes_day(&self, day: i32) -> bool {
        self.all.is_some_and(|time| i64::from(day) < time.div_euclid(DAY))
    }
}

/// Returns the start of the UTC day that is `days` before the day of `now`.
fn start_of_day(now: Micros, days: u32) -> Micros {
    (now.div_euclid(DAY) - i64::from(days)) * DAY
}

/// Formats the UTC date of a time.
pub(in crate::contract) fn date_text(time: Micros) -> String {
    DateTime::from_timestamp_micros(time).map_or_else(String::new, |time| time.format("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-31T00:00:00Z.
    const TODAY: Micros = 20_543 * DAY;

    fn retention(days: u32, tenants: &[(&str, u32)]) -> Retention {
        let tenants = tenants.iter().map(|(tenant, days)| ((*tenant).to_owned(), *days)).collect();
        Retention::of(&TableConfig { retention_days: days, retention_tenants: tenants, ..TableConfig::default() })
            .unwrap()
    }

    #[test]
    fn whole_utc_days_expire() {
        // The retention, the tenant, and the age of the first expired day in days.
        for (days, tenants, tenant, expected) in [
            (0, &[][..], "acme", None),
            (30, &[][..], "acme", Some(30)),
            (30, &[("acme", 7)], "acme", Some(7)),
            (30, &[("acme", 7)], "globex", Some(30)),
            (0, &[("acme", 7)], "acme", Some(7)),
            (0, &[("acme", 7)], "globex", None),
            (1, &[("globex", 1)], "acme", Some(1)),
        ] {
            let retention = retention(days, tenants);
            for now in [TODAY, TODAY + 1, TODAY + DAY - 1] {
                let start = expected.map(|days| TODAY - days * DAY);
                assert_eq!(retention.bounds(now).of_tenant(tenant), start, "{retention:?} {tenant} {now}");
                for age in 0..40 {
                    for time in [TODAY - age * DAY, TODAY - age * DAY + DAY - 1] {
                        let is_expired = start.is_some_and(|start| time < start);
                        let found = retention.expired(now, time, || tenant);
                        assert_eq!(found.is_some(), is_expired, "{retention:?} {tenant} {now} {time}");
                        assert!(found.is_none_or(|(_, found)| Some(found) == start));
                    }
                }
            }
            let tomorrow = expected.map(|days| TODAY + DAY - days * DAY);
            assert_eq!(retention.bounds(TODAY + DAY).of_tenant(tenant), tomorrow);
        }
        assert_eq!(date_text(TODAY), "2026-03-31");
    }

    #[test]
    fn names_of_tenants_are_checked() {
        let config = TableConfig { retention_tenants: [(String::new(), 3)].into(), ..TableConfig::default() };
        let error = Retention::of(&config).unwrap_err();
        assert_eq!(error.message(), "retention_tenants: a tenant id must not be empty");
    }
}
