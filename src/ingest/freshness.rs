//! The freshness of a table. It consists of the table's watermark, its version, and the times of its newest data. The
//! watermark is the time up to which the table is complete. It is computed from the events that are in flight to the
//! table ([`InFlight`](crate::lake::InFlight)).

use crate::clock::{Clock, Micros};
use crate::contract::Owner;
use crate::lake::{Table, Watermark};

/// The freshness of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// The table's watermark. Events that this server received before the watermark are either stored and visible, or
    /// in the quarantine.
    pub watermark: Watermark,
    /// The freshness of the data of all tenants. `None` unless the caller is an operator.
    pub table: Option<TableFreshness>,
}

/// The version of a table, and the times of its newest data, regardless of which server received the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFreshness {
    /// The latest table version that this server has read or committed.
    pub version: u64,
    /// The latest receive time in the table, rounded up by at most two milliseconds. `None` if the table is empty.
    pub newest_received: Option<Micros>,
    /// The time at which the newest file was written. `None` if the table is empty.
    pub written: Option<Micros>,
}

impl Freshness {
    /// Returns the freshness of a table. The result includes only data that `owner` may see.
    pub(super) fn of(table: &Table, owner: &Owner, clock: &Clock) -> Self {
        let watermark = table.in_flight().watermark(owner, clock);
        let all = || {
            let (snapshot, expiry) = (table.snapshot(), table.contract().retention.bounds(clock.now()));
            let kept = || snapshot.days().filter(|day| !expiry.includes_day(day.day()));
            let received = kept().filter_map(|day| day.newest_received());
            let written = kept().filter_map(|day| day.newest_modified()).map(|ms| ms.saturating_mul(1_000));
            TableFreshness { version: snapshot.version, newest_received: received.max(), written: written.max() }
        };
        Self { watermark, table: (*owner == Owner::PerEvent).then(all) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SECOND;
    use crate::config::{ColumnConfig, LatestConfig, TableConfig};
    use crate::contract::Contract;
    use crate::error::Kind;
    use crate::ingest::testing::{QUARANTINE, TABLE, limits, lines, memory, open, open_as, submit};
    use crate::ingest::{Body, Ingest};
    use crate::tenancy::Scope;
    use crate::tenancy::testing::access;

    #[tokio::test]
    async fn the_watermark_covers_acknowledged_events() {
        let (store, now) = (memory(), Clock::System.now());
        let clock = Clock::fixed(now);
        let ingest =
            Ingest::start(open(&store).await, Vec::new(), limits(), clock.clone(), Arc::default()).await.unwrap();
        let both = [Scope::Read, Scope::Ingest];
        let (acme, operator) = (access(Some("acme"), &both, &[TABLE]).await, access(None, &[Scope::Admin], &[]).await);
        let body = Body::Encoded(crate::contract::Format::Json, (lines(["a"]) + "{}\n").into());
        submit(&ingest, &acme, TABLE, body).await.unwrap();
        clock.set(now + SECOND);
        let freshness = ingest.writer.freshness(&acme, TABLE).unwrap();
        let watermark = Watermark { now: now + SECOND, complete_until: now + SECOND, source_lag: None };
        assert_eq!(freshness, Freshness { watermark, table: None });
        let freshness = ingest.writer.freshness(&operator, TABLE).unwrap().table.unwrap();
        // The time comes from file statistics, which round times up to milliseconds.
        let newest = freshness.newest_received.unwrap();
        assert!(freshness.version > 0 && (now..now + 2_000).contains(&newest), "{freshness:?}");

        for (access, table, kind) in [
            (access(Some("acme"), &[Scope::Ingest], &[TABLE]).await, TABLE, Kind::Forbidden),
            (access(None, &[Scope::Ingest], &[]).await, TABLE, Kind::Forbidden),
            (access(Some("acme"), &both, &[]).await, TABLE, Kind::NotFound),
            (acme.clone(), QUARANTINE, Kind::NotFound),
            (operator.clone(), "other", Kind::NotFound),
        ] {
            assert_eq!(ingest.writer.freshness(&access, table).unwrap_err().kind(), kind, "{table}");
        }
        ingest.stop().await;
    }

    #[tokio::test]
    async fn promised_events_hold_the_watermark_back_until_they_are_stored() {
        let (store, now) = (memory(), Clock::System.now());
        let clock = Clock::fixed(now);
        let ingest =
            Ingest::start(open(&store).await, Vec::new(), limits(), clock.clone(), Arc::default()).await.unwrap();
        let acme = access(Some("acme"), &[Scope::Read, Scope::Ingest], &[TABLE]).await;
        // The committer stores the event only after the loop below has yielded, because all tasks share one thread.
        let body = Body::Encoded(crate::contract::Format::Json, lines(["a"]).into());
        let (writer, target) = (&ingest.writer, ingest.writer.authorize(&acme, TABLE).unwrap());
        writer.submit_received(writer.reservation(), target, body, "test").await.unwrap();
        clock.set(now + SECOND);
        while ingest.writer.freshness(&acme, TABLE).unwrap().watermark.complete_until == now {
            tokio::task::yield_now().await;
        }
        assert_eq!(ingest.writer.tables()[TABLE].snapshot().rows(), 1, "the watermark moves after the commit");
        ingest.stop().await;
    }

    #[tokio::test]
    async fn the_table_of_all_versions_has_the_freshness_of_its_table() {
        let column = |(name, kind): (&str, &str)| ColumnConfig {
            name: name.to_owned(),
            kind: kind.to_owned(),
            ..ColumnConfig::default()
        };
        let columns = [("tenant", "text"), ("at", "timestamp"), ("change", "text"), ("item", "text")];
        let latest = LatestConfig { key: vec!["item".to_owned()], by: "at".to_owned(), ..LatestConfig::default() };
        let config = TableConfig {
            columns: columns.map(column).to_vec(),
            tenant: "tenant".to_owned(),
            time: "at".to_owned(),
            id: "change".to_owned(),
            latest: Some(latest),
            ..TableConfig::default()
        };
        let contract = Arc::new(Contract::new("items", &config, std::path::Path::new(".")).unwrap());
        let (tables, clock) = (open_as(&memory(), &contract).await, Clock::fixed(Clock::System.now()));
        let ingest = Ingest::start(tables, Vec::new(), limits(), clock, Arc::default()).await.unwrap();
        let read = [Scope::Read];
        let (acme, stranger) = (access(Some("acme"), &read, &["items"]).await, access(Some("acme"), &read, &[]).await);
        let expected = ingest.writer.freshness(&acme, "items").unwrap();
        assert_eq!(ingest.writer.freshness(&acme, "items_changes").unwrap(), expected);
        for (access, name) in [(&stranger, "items_changes"), (&acme, "other_changes"), (&acme, "items_quarantine")] {
            assert_eq!(ingest.writer.freshness(access, name).unwrap_err().kind(), Kind::NotFound, "{name}");
        }
        ingest.stop().await;
    }
}
