//! Removes the expired rows of one table: once when the server starts, and then once an hour.
//!
//! Whole files are removed at once. For files that also have other rows, the number of expired rows is counted, and the
//! policy of [`retention`](super::retention) decides which of them are rewritten. The table's merger rewrites them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::contract::ExpiryBounds;
use crate::lake::{DataFile, Snapshot, Table};
use crate::maintenance::expired_rows::tenant_rows;
use crate::maintenance::policy::{Excluded, Unit};
use crate::maintenance::retention::{self, may_be_partly_expired, remove_expired};
use crate::telemetry::Metrics;

/// The interval at which expired rows are removed.
const INTERVAL: Duration = Duration::from_secs(3_600);

/// The number of rows of each tenant that has a retention of its own.
type TenantRows = BTreeMap<String, u64>;

/// The files of a table that may have expired rows beside other rows.
#[derive(Debug, Default)]
pub(super) struct PartlyExpired(Mutex<HashMap<Arc<str>, (Arc<DataFile>, TenantRows)>>);

impl PartlyExpired {
    /// Returns the rewrites that are due.
    pub(super) fn plan(&self, snapshot: &Snapshot, expiry: &ExpiryBounds, excluded: &Excluded) -> Vec<Unit> {
        let counted = self.lock();
        let live = counted.values().filter(|(file, _)| snapshot.contains(file));
        retention::plan(&live.cloned().collect::<Vec<_>>(), expiry, excluded)
    }

    /// Counts the rows of files that have not been counted, and forgets files that are no longer live. Files that
    /// cannot be read are left out until the next call.
    async fn count(&self, table: &Arc<Table>, expiry: &ExpiryBounds) {
        let snapshot = table.snapshot();
        self.lock().retain(|_, (file, _)| snapshot.contains(file));
        let candidates = snapshot.files().filter(|file| may_be_partly_expired(file, expiry));
        let new: Vec<_> = candidates.filter(|file| !self.lock().contains_key(&file.path)).cloned().collect();
        for file in new {
            match tenant_rows(table, &file, expiry).await {
                Ok(rows) => drop(self.lock().insert(Arc::clone(&file.path), (file, rows))),
                Err(error) => {
                    tracing::warn!(table = %table.contract().name, file = %file.path, ?error, "cannot count expired rows");
                }
            }
        }
    }

    /// Locks the map. No code panics while it holds the lock, so poisoning can be ignored.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, (Arc<DataFile>, TenantRows)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes expired rows until `stop` is cancelled. Ends at once if the table keeps all rows.
pub(super) async fn run(table: &Arc<Table>, partly: &PartlyExpired, metrics: &Metrics, stop: &CancellationToken) {
    let name = &table.contract().name;
    loop {
        let expiry = table.expiry();
        if expiry.all.is_none() && expiry.tenants.is_empty() {
            return;
        }
        let now = table.location().0.clock.now();
        let Some(removed) = stop.run_until_cancelled(remove_expired(table, now)).await else { return };
        match removed {
            Ok(removed) => metrics.maintenance.expired(name, removed.files as u64, removed.rows),
            Err(error) => tracing::warn!(table = %name, ?error, "cannot remove expired rows, which stay invisible"),
        }
        if stop.run_until_cancelled(partly.count(table, &expiry)).await.is_none()
            || stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none()
        {
            return;
        }
    }
}
