//! Tests of commits whose files are past the commit deadline, and of fences.

use std::sync::Arc;

use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;

use crate::clock::Clock;
use crate::error::Kind;
use crate::lake::file_ages::COMMIT_DEADLINE;
use crate::lake::store::faulty_store::{FaultyStore, StoreFault};
use crate::lake::tests::{append, batch, draft, events, expected, ids, open, progress};
use crate::lake::{Committed, Replaced, Store};

fn faulty_store() -> (Arc<FaultyStore>, Store, Clock) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    let clock = Clock::fixed(Clock::System.now());
    let store = Store::wrap(Arc::clone(&faulty) as _, "memory:///".parse().unwrap(), "lake".into());
    (faulty, store.with_clock(clock.clone()), clock)
}

#[tokio::test]
async fn files_past_the_deadline_are_not_committed() {
    use StoreFault::{Late, Lost, ResponseLost};
    // A draft that was never put, and drafts in doubt: the entry is lost, arrives before the second attempt, or is in
    // the log.
    let cases = [
        (&[][..], Committed::Expired),
        (&[Lost, Lost, Lost], Committed::Expired),
        (&[Lost, Lost, Late], Committed::At(1)),
    ];
    for (faults, outcome) in cases {
        let (faulty, store, clock) = faulty_store();
        let table = open(&store).await;
        let mut draft = draft(&table, 0..10, progress("source", None, 1)).await;
        faulty.plan(faults);
        if !faults.is_empty() {
            assert_eq!(table.commit_after(0, &mut draft).await.unwrap_err().kind(), Kind::Unavailable);
        }
        clock.set(clock.now() + COMMIT_DEADLINE);
        assert_eq!(table.commit_after(0, &mut draft).await.unwrap(), outcome, "{faults:?}");
        table.discard(draft).await;
        let rows = if outcome == Committed::Expired { 0..0 } else { 0..10 };
        assert_eq!(ids(&*open(&store).await).await, expected(rows), "{faults:?}");
    }
    // The process slept between the check and the put, and another tool has deleted the file.
    for (after, left) in [(None, 1), (Some(1), 1)] {
        let (faulty, store, clock) = faulty_store();
        let table = open(&store).await;
        if after.is_some() {
            table.commit(Vec::new(), progress("source", None, 1)).await.unwrap();
        }
        let mut draft = draft(&table, 0..10, progress("source", after, left + after.unwrap_or(0))).await;
        faulty.plan(&[ResponseLost]);
        let version = table.snapshot().version;
        let committed = table.commit_after(version, &mut draft).await.unwrap();
        assert_eq!(committed, Committed::At(version + 1));
        clock.set(clock.now() + COMMIT_DEADLINE);
        assert_eq!(table.commit_after(version, &mut draft).await.unwrap(), committed, "the file exists");
        store.objects.delete(&table.file_path(&draft.files()[0])).await.unwrap();
        assert_eq!(table.commit_after(version, &mut draft).await.unwrap(), Committed::Lost);
        let snapshot = open(&store).await.snapshot();
        assert_eq!((snapshot.rows(), snapshot.txns["source"]), (0, 1), "the progress is set back if it had a value");
    }
}

#[tokio::test]
async fn a_replacement_past_the_deadline_is_void() {
    let (_, store, clock) = faulty_store();
    let table = open(&store).await;
    append(&table, 0..10).await;
    let to = table.write(batch(table.contract(), &events(0..10))).await.unwrap();
    let from: Vec<_> = table.snapshot().files().cloned().collect();
    clock.set(clock.now() + COMMIT_DEADLINE);
    assert_eq!(table.replace(&from, to).await.unwrap(), Replaced::Void);
    assert_eq!(table.snapshot().version, 1);
}

#[tokio::test]
async fn a_fence_takes_the_next_version() {
    use StoreFault::{Late, Lost, ResponseLost, Retried};
    for faults in [&[][..], &[ResponseLost], &[Retried], &[Lost], &[Late], &[Late, Late]] {
        let (faulty, store, _) = faulty_store();
        let (table, other) = (open(&store).await, open(&store).await);
        append(&other, 0..10).await;
        faulty.plan(faults);
        let fence = table.fence().await.unwrap();
        assert_eq!((fence.snapshot.version, fence.snapshot.rows()), (2, 10), "{faults:?}");
        assert_eq!(fence.now_ms, table.log.modified_ms(2).await.unwrap());
        assert_eq!(append(&other, 10..20).await, 3);
    }
}
