//! Tests that events are rejected once they are older than the retention.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use crate::clock::DAY;
use crate::config::TableConfig;
use crate::contract::testing::*;
use crate::contract::{Contract, Reason, decode_arrow};

/// Creates a contract that keeps events for 4 days, those of `acme` for 3 and those of `globex` for 2.
fn contract() -> Contract {
    let tenants = [("acme".to_owned(), 3), ("globex".to_owned(), 2)];
    let config = TableConfig { retention_days: 4, retention_tenants: tenants.into(), ..plain_config("more") };
    Contract::new("plain", &config, Path::new("")).unwrap()
}

#[test]
fn expired_events_are_rejected() {
    let contract = contract();
    // The events are received at the start of 2026.
    for (options, tenant, days, first) in [
        (acme(), "", 3, "2025-12-29"),
        (acme(), "acme", 3, "2025-12-29"),
        (operator(), "acme", 3, "2025-12-29"),
        (operator(), "globex", 2, "2025-12-30"),
        (operator(), "initech", 4, "2025-12-28"),
    ] {
        let event = |time: String| format!(r#"{{"who": "{tenant}", "at": "{time}", "key": "k"}}"#);
        let mut late = options.clone();
        late.received += DAY - 1;
        for options in [&options, &late] {
            let kept = json(&contract, event(format!("{first}T00:00:00Z")), options);
            assert_eq!((kept.batch.num_rows(), kept.rejects.len()), (1, 0), "{tenant}");
        }
        late.received += 1;
        let rejects = json(&contract, event(format!("{first}T23:59:59.999999Z")), &late).rejects;
        assert_eq!(rejects[0].reason.as_str(), "too_old", "{tenant}");
        let detail = &json(&contract, event("1999-12-31T00:00:00Z".to_owned()), &options).rejects[0].detail;
        let expected = format!("`at` is before {first} (UTC), and the table keeps events for {days} days");
        assert!(detail.contains(&expected), "{detail}");
    }
}

#[test]
fn expired_arrow_events_are_rejected() {
    let contract = contract();
    // 2026-01-01T00:00:00Z minus some days.
    let times = [2, 3, 4, 5].map(|days| 1_767_225_600 - days * 86_400);
    for (tenant, indexes) in [("initech", &[3][..]), ("acme", &[2, 3]), ("globex", &[1, 2, 3])] {
        let columns: [(&str, ArrayRef); 3] = [
            ("who", Arc::new(StringArray::from(vec![tenant; 4]))),
            ("at", Arc::new(Int64Array::from(times.to_vec()))),
            ("key", Arc::new(StringArray::from(vec!["a", "b", "c", "d"]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let rejects = decode_arrow(&contract, &batch, 0, &operator()).unwrap().rejects;
        let found: Vec<_> = rejects.iter().map(|reject| (reject.index, reject.reason)).collect();
        assert_eq!(found, indexes.iter().map(|index| (*index, Reason::TooOld)).collect::<Vec<_>>(), "{tenant}");
    }
}
