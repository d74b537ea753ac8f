//! Up to when a table is complete, for a caller: what the table's [`InFlight`](crate::lake::InFlight) says, to those who may know.

use super::submit::unknown;
use super::{Ingest, stopping};
use crate::clock::Micros;
use crate::contract::Owner;
use crate::error::Result;
use crate::lake::Watermark;
use crate::tenancy::{Access, Scope};

/// How fresh a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// All events that this server received before its time are stored and visible, or in quarantine.
    pub watermark: Watermark,
    /// What concerns all tenants: for operators.
    pub table: Option<TableFreshness>,
}

/// The newest of a table, whoever stored it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFreshness {
    /// The newest version that this server knows.
    pub version: u64,
    /// The latest receive time that is stored, or up to two milliseconds more.
    pub newest_received: Option<Micros>,
    /// When the newest of its files was written.
    pub written: Option<Micros>,
}

impl Ingest {
    /// How fresh a table is: for a tenant with the scope `read` that sees it, or an operator with `admin`.
    pub fn freshness(&self, access: &Access, table: &str) -> Result<Freshness> {
        if self.ending.hurry.is_cancelled() {
            return Err(stopping());
        }
        access.check_expiry(self.clock.now())?;
        let owner = access.owner();
        let operator = owner == Owner::PerEvent;
        access.require(if operator { Scope::Admin } else { Scope::Read })?;
        let visible = self.table_queues.get(table).is_some_and(|table_queue| table_queue.preparer.is_some());
        let visible = visible && (operator || access.rules(table).is_some());
        let open = self.tables.get(table).filter(|_| visible).ok_or_else(|| unknown(table))?;
        let watermark = open.in_flight().watermark(&owner, &self.clock);
        let told = || {
            let snapshot = open.snapshot();
            let received = snapshot.files.iter().filter_map(|file| Some(file.received?.1));
            let written = snapshot.files.iter().map(|file| file.modified.saturating_mul(1_000));
            TableFreshness { version: snapshot.version, newest_received: received.max(), written: written.max() }
        };
        Ok(Freshness { watermark, table: operator.then(told) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, SECOND};
    use crate::error::Kind;
    use crate::ingest::Payload;
    use crate::ingest::testing::{QUARANTINE, TABLE, limits, lines, memory, open};
    use crate::tenancy::testing::access;

    #[tokio::test]
    async fn what_is_acknowledged_is_behind_the_mark() {
        let (store, now) = (memory(), Clock::System.now());
        let clock = Clock::fixed(now);
        let ingest = Ingest::start(open(&store).await, limits(), clock.clone(), Arc::default()).await.unwrap();
        let both = [Scope::Read, Scope::Ingest];
        let (acme, operator) = (access(Some("acme"), &both, &[TABLE]).await, access(None, &[Scope::Admin], &[]).await);
        let payload = || Payload::Encoded(crate::contract::Format::Json, (lines(["a"]) + "{}\n").into());
        ingest.submit(&acme, TABLE, payload(), "test").await.unwrap();
        clock.set(now + SECOND);
        let told = ingest.freshness(&acme, TABLE).unwrap();
        let watermark = Watermark { now: now + SECOND, complete_until: now + SECOND, source_lag: None };
        assert_eq!(told, Freshness { watermark, table: None });
        let told = ingest.freshness(&operator, TABLE).unwrap().table.unwrap();
        // Bounds of files are milliseconds, rounded up.
        let newest = told.newest_received.unwrap();
        assert!(told.version > 0 && (now..now + 2_000).contains(&newest), "{told:?}");

        for (access, table, kind) in [
            (access(Some("acme"), &[Scope::Ingest], &[TABLE]).await, TABLE, Kind::Forbidden),
            (access(None, &[Scope::Ingest], &[]).await, TABLE, Kind::Forbidden),
            (access(Some("acme"), &both, &[]).await, TABLE, Kind::NotFound),
            (acme.clone(), QUARANTINE, Kind::NotFound),
            (operator.clone(), "other", Kind::NotFound),
        ] {
            assert_eq!(ingest.freshness(&access, table).unwrap_err().kind(), kind, "{table}");
        }
        ingest.stop().await;
    }

    #[tokio::test]
    async fn a_promise_holds_the_mark_until_it_is_kept() {
        let (store, now) = (memory(), Clock::System.now());
        let clock = Clock::fixed(now);
        let ingest = Ingest::start(open(&store).await, limits(), clock.clone(), Arc::default()).await.unwrap();
        let acme = access(Some("acme"), &[Scope::Read, Scope::Ingest], &[TABLE]).await;
        // Nothing else runs between the answer and this look: the committer has no turn yet.
        let payload = Payload::Encoded(crate::contract::Format::Json, lines(["a"]).into());
        ingest.submit_received(ingest.reservation(), &acme, TABLE, payload, "test").await.unwrap();
        clock.set(now + SECOND);
        while ingest.freshness(&acme, TABLE).unwrap().watermark.complete_until == now {
            tokio::task::yield_now().await;
        }
        assert_eq!(ingest.tables()[TABLE].snapshot().rows(), 1, "the mark moves after the commit");
        ingest.stop().await;
    }
}
