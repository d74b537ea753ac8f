//! Tests the table operations that deduplication uses: reading a file's keys, looking up stored events, and committing
//! only if no other writer has added rows.

use arrow::array::AsArray;
use object_store::ObjectStoreExt;

use crate::clock::DAY;
use crate::config::LakeConfig;
use crate::lake::tests::{
    Event, NOON, append, batch, config, contract, draft, events, expected, ids, open, progress, stores,
};
use crate::lake::{Committed, EventKeys, ReadError, Replaced, Table};

#[tokio::test]
async fn keys_returns_the_tenants_and_ids_of_a_file() {
    let (store, _) = stores().remove(0);
    let table = open(&store).await;
    append(&table, 0..10).await;
    let file = table.snapshot().files().next().unwrap().clone();
    let mut ids = Vec::new();
    for batch in table.keys(&file).await.unwrap() {
        assert_eq!(
            batch.schema().fields().iter().map(|field| field.name()).collect::<Vec<_>>(),
            ["tenant_id", "event_id"]
        );
        ids.extend(batch.column(1).as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    ids.sort();
    assert_eq!(ids, expected(0..10));
}

#[tokio::test]
async fn stored_events_are_found_by_tenant_time_and_id() {
    let (store, _) = stores().remove(0);
    let small = LakeConfig { row_group_rows_max: 20_000, ..config("memory:///") };
    let table = Table::open(&store, contract(), &small).await.unwrap();
    // Three files that overlap in time, one of them with several row groups and many pages.
    let many: Vec<_> = (0..50_000).map(|number| ("acme", NOON + number * 7, format!("m{number}"))).collect();
    let few = vec![
        ("acme", NOON + 70, "few".to_owned()),
        ("zeta", NOON, "few".to_owned()),
        ("zeta", NOON + DAY, "next".to_owned()),
    ];
    for events in [&many, &few] {
        let files = table.write(batch(table.contract(), events)).await.unwrap();
        table.commit(files, Vec::new()).await.unwrap();
    }
    let cases = [
        (("acme", NOON, "m0"), true),
        (("acme", NOON + 7 * 49_999, "m49999"), true),
        (("acme", NOON + 7 * 31_234, "m31234"), true),
        (("acme", NOON + 7 * 31_234, "m31235"), false),
        (("acme", NOON + 7 * 31_235, "m31234"), false),
        (("zeta", NOON + 7 * 31_234, "m31234"), false),
        (("acme", NOON + 70, "few"), true),
        (("zeta", NOON, "few"), true),
        (("zeta", NOON + DAY, "few"), false),
        (("zeta", NOON + DAY, "next"), true),
        (("acme", NOON - DAY, "few"), false),
        (("omega", NOON, "few"), false),
        (("acme", NOON, "m0"), true),
    ];
    let sent: Vec<Event<'_>> = cases.iter().map(|((tenant, time, id), _)| (*tenant, *time, (*id).to_owned())).collect();
    let expected: Vec<bool> = cases.iter().map(|(_, stored)| *stored).collect();
    let keys = || EventKeys::of(table.contract(), &batch(table.contract(), &sent)).unwrap();
    let files = table.snapshot().files().cloned().collect::<Vec<_>>();
    assert_eq!(files.len(), 3);
    assert_eq!(table.stored(&files, keys()).await.unwrap(), expected);
    assert_eq!(table.stored(&files, keys()).await.unwrap(), expected, "with cached filters");
    assert_eq!(table.stored(&[], keys()).await.unwrap(), vec![false; cases.len()], "only the given files are searched");
    // Look up all events in one call.
    let keys = EventKeys::of(table.contract(), &batch(table.contract(), &many)).unwrap();
    assert!(table.stored(&files, keys).await.unwrap().iter().all(|stored| *stored));
}

#[tokio::test]
async fn removed_files_are_searched_until_the_store_has_deleted_them() {
    let (store, _) = stores().remove(0);
    let table = open(&store).await;
    append(&table, 0..10).await;
    let from = table.snapshot().files().cloned().collect::<Vec<_>>();
    let to = table.write(batch(table.contract(), &events(0..10))).await.unwrap();
    assert!(matches!(table.replace(&from, to).await.unwrap(), Replaced::At(2)));
    let keys = || EventKeys::of(table.contract(), &batch(table.contract(), &events(5..15))).unwrap();
    let found = table.stored(&from, keys()).await.unwrap();
    assert_eq!(found.into_iter().filter(|found| *found).count(), 5);
    let other = open(&store).await;
    store.objects.delete(&table.file_path(&from[0])).await.unwrap();
    for table in [&table, &other] {
        let error = table.stored(&from, keys()).await.unwrap_err();
        assert!(matches!(error, ReadError::Missing(_)), "{error:?}");
        let error = table.keys(&from[0]).await.unwrap_err();
        assert!(matches!(error, ReadError::Missing(_)), "{error:?}");
    }
}

#[tokio::test]
async fn rows_are_committed_only_after_the_version_they_were_compared_with() {
    let (store, _) = stores().remove(0);
    let (one, other) = (open(&store).await, open(&store).await);
    let mut first = draft(&one, 0..10, Vec::new()).await;
    assert_eq!(one.commit_after(0, &mut first).await.unwrap(), Committed::At(1));
    assert_eq!(
        one.commit_after(0, &mut first).await.unwrap(),
        Committed::At(1),
        "the same commit again, as after an in-doubt result"
    );
    // The handle `other` reads the first handle's commit only when it puts its own entry.
    let mut second = draft(&other, 10..20, Vec::new()).await;
    assert_eq!(other.commit_after(0, &mut second).await.unwrap(), Committed::Behind);
    assert_eq!(ids(&other).await, expected(0..10), "the handle knows of the commit now");
    // A commit without files adds no rows.
    one.refresh().await.unwrap();
    one.commit(Vec::new(), progress("source", None, 5)).await.unwrap();
    assert_eq!(other.commit_after(1, &mut second).await.unwrap(), Committed::At(3));
    let mut third = draft(&one, 20..30, Vec::new()).await;
    assert_eq!(one.commit_after(2, &mut third).await.unwrap(), Committed::Behind);
    let path = one.file_path(&third.files()[0]);
    one.discard(third).await;
    assert!(one.location().0.objects.head(&path).await.is_err(), "the file is deleted");
    assert_eq!(ids(&one).await, expected(0..20));
}
