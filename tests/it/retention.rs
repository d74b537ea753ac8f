//! Tests of retention with a server: no endpoint returns an expired row, expired events are rejected, and the files of
//! expired rows leave the table.

use glasshouse::clock::Clock;
use serde_json::{Value, json};

use crate::client_suite::run_python;
use crate::requirements::needs;
use crate::senders::post;
use crate::server::{Server, Setup, until_async};

/// The ages of each tenant's events in days. All events of `acme` are kept for 30 days, and those of `globex` for 7.
const AGES: [i64; 4] = [0, 5, 20, 60];
const SETTINGS: [(&str, &str); 2] =
    [("TABLES__SAMPLES__RETENTION_DAYS", "30"), ("TABLES__SAMPLES__RETENTION_TENANTS__GLOBEX", "7")];
/// The tenants, each with the number of events that are kept.
const KEPT: [(&str, usize); 2] = [("acme", 3), ("globex", 2)];
const CHECKS: &[&str] =
    &["only_kept_rows_are_in_the_table", "older_versions_have_all_rows", "the_log_names_the_reason"];

/// Returns one event of a tenant for each age. `round` makes the ids different.
fn body(tenant: &str, round: usize) -> String {
    let now = Clock::System.now_seconds();
    let event = |age: &i64| {
        let at = (now - age * 86_400) * 1_000_000;
        format!("{}\n", json!({ "id": format!("{tenant}-{round}-{age}"), "at": at, "small": age }))
    };
    AGES.iter().map(event).collect()
}

fn ids(tenant: &str, count: usize) -> impl Iterator<Item = String> {
    AGES[..count].iter().map(move |age| format!("{tenant}-0-{age}"))
}

/// Asks each tenant over all endpoints, and checks that the expired rows are not there.
async fn check_visible_rows(server: &Server) {
    for (tenant, count) in KEPT {
        let ask = |sql: &str| server.ask(tenant, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let last = |sql: &str| ask(sql).lines().last().unwrap().to_owned();
        assert_eq!(last("SELECT count(*) FROM samples"), count.to_string(), "{tenant}");
        let listed: Vec<String> =
            ask("SELECT id FROM samples ORDER BY small").lines().skip(1).map(str::to_owned).collect();
        assert_eq!(listed, ids(tenant, count).collect::<Vec<_>>());
        for condition in
            ["id LIKE '%-60'", "small = 60", "at < now() - INTERVAL '31 days'", "event_date < '2026-01-01'"]
        {
            assert_eq!(last(&format!("SELECT count(*) FROM samples WHERE {condition}")), "0", "{tenant}: {condition}");
        }
        assert_eq!(last("SELECT max(small) FROM samples"), AGES[count - 1].to_string());
        let (status, page) = server.get(tenant, "/v1/tables/samples/freshness").await;
        assert_eq!(status, 200, "{page}");
    }
}

/// Returns the version of the table.
async fn version(server: &Server) -> u64 {
    let (status, page) = server.get("admin", "/v1/tables/samples/freshness").await;
    assert_eq!(status, 200, "{page}");
    serde_json::from_str::<Value>(&page).unwrap()["version"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_events_are_hidden_rejected_and_removed() {
    needs!(Python);
    let lake = tempfile::tempdir().unwrap();
    let setup = Setup { lake: Some(lake.path().display().to_string()), ..Setup::default() };
    let server = Server::start(&setup);
    for (tenant, _) in KEPT {
        let (_, _, receipt) = post(&server, tenant, body(tenant, 0)).await;
        assert_eq!(receipt["accepted"], AGES.len(), "{receipt}");
    }
    assert!(server.stop());

    // First without maintenance: the rows are hidden while their files are still live.
    let settings = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let disabled = ("MAINTENANCE__ENABLED".to_owned(), "false".to_owned());
    let mut setup = Setup { settings: [settings.clone(), vec![disabled]].concat(), ..setup };
    let server = Server::start(&setup);
    check_visible_rows(&server).await;
    // Expired events are rejected, also those that are already stored.
    for (tenant, kept) in KEPT {
        let (_, _, receipt) = post(&server, tenant, body(tenant, 0)).await;
        assert_eq!(
            (&receipt["duplicate"], &receipt["rejected"]),
            (&json!(kept), &json!(AGES.len() - kept)),
            "{receipt}"
        );
        assert!(receipt["rejects"].as_array().unwrap().iter().all(|reject| reject["reason"] == "too_old"), "{receipt}");
        let in_quarantine = "SELECT count(*) FROM samples_quarantine WHERE reason = 'too_old'";
        let entries = server.ask(tenant, in_quarantine);
        assert!(entries.as_ref().is_ok_and(|text| text.ends_with(&(AGES.len() - kept).to_string())), "{entries:?}");
    }

    // With maintenance, the server removes the files.
    let before = version(&server).await;
    assert!(server.stop());
    setup.settings = settings;
    let server = Server::start(&setup);
    until_async("the server removes the files", async || version(&server).await > before).await;
    let (_, health) = server.get("admin", "/v1/maintenance").await;
    let health: Value = serde_json::from_str(&health).unwrap();
    let samples = health["tables"].as_array().unwrap().iter().find(|table| table["table"] == "samples").unwrap();
    assert_eq!(samples["rows"], 5, "{samples}");
    assert!((server.metric("glasshouse_expired_rows_total{table=\"samples\"}").await - 3.0).abs() < 0.5);
    check_visible_rows(&server).await;
    for (tenant, kept) in KEPT {
        let (_, _, receipt) = post(&server, tenant, body(tenant, 0)).await;
        assert_eq!(receipt["duplicate"], kept, "events that are kept are still known: {receipt}");
    }
    let mut facts = server.facts();
    facts["kept"] = KEPT.into_iter().flat_map(|(tenant, count)| ids(tenant, count)).collect();
    facts["all"] = KEPT.into_iter().flat_map(|(tenant, _)| ids(tenant, AGES.len())).collect();
    facts["before"] = json!(before);
    run_python("retention_suite.py", &server.write_facts(&facts), CHECKS);
    assert!(server.stop());
}
