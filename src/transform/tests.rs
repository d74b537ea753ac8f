//! Tests of transforms: which statements are accepted, and which rows and errors they produce from messages.

use std::time::Duration;

use tokio::runtime::Runtime;

use super::testing::{Case, message, select};
use super::{Header, Message, MessageError, Rows};
use crate::config::TenantFrom;
use crate::contract::Reason;
use crate::error::{Error, Kind};

#[test]
fn all_message_properties_are_columns() {
    let case = Case::new(
        "SELECT key AS tenant_id, time AS event_time, topic || '/' || partition || '/' || offset AS event_id,
                json_float(value, 'total') AS total, headers['city'] AS city
         FROM messages WHERE value IS NOT NULL OR headers['keep'] = 'yes'",
    );
    let header = |name: &str, value: &[u8]| -> Header { (name.to_owned(), Some(value.to_vec())) };
    let headers = [header("city", b"old"), header("city", b"Lima"), header("bad", b"\xff")];
    let keep = [header("keep", b"yes")];
    let plain = message(7, r#"{"total": 12.5}"#);
    let messages = [
        Message { headers: &headers, ..plain },
        Message { value: None, ..plain },
        Message { value: None, headers: &keep, key: Some(b"\xff"), time: None, ..plain },
        Message { value: Some(b"\xff"), ..plain },
        Message { value: Some(b"{"), ..plain },
        Message { value: Some(b""), ..plain },
    ];
    let (rows, errors) = case.run(&messages).unwrap();
    let time = "\"event_time\":\"2026-03-01T12:00:00Z\"";
    assert_eq!(
        rows,
        [
            format!(
                "0: {{\"tenant_id\":\"acme\",{time},\"event_id\":\"shop.orders/0/7\",\"total\":12.5,\"city\":\"Lima\"}}"
            ),
            "2: {\"event_id\":\"shop.orders/0/7\"}".to_owned(),
        ]
    );
    let reasons: Vec<_> = errors.iter().map(|error| (error.message, error.reason)).collect();
    assert_eq!(reasons, [(3, Reason::InvalidUtf8), (4, Reason::Malformed), (5, Reason::Malformed)]);
}

#[test]
fn database_changes_are_columns() {
    let case = Case::debezium(
        "SELECT row->>'tenant' AS tenant_id, changed_time AS event_time,
                op || '/' || (source->>'lsn') || '/' || (row->>'id') AS event_id,
                CASE WHEN deleted THEN 0 ELSE CAST(after->>'total' AS DOUBLE) - coalesce(json_float(before, 'total'), 0) END AS total,
                source->>'table' AS city
         FROM messages WHERE op <> 'r'",
    );
    let source = r#""source":{"table":"o","lsn":5,"ts_us":1772366400000000}"#;
    let created = format!(r#"{{"op":"c","before":null,"after":{{"id":1,"tenant":"acme","total":"8.5"}},{source}}}"#);
    let updated = format!(
        r#"{{"schema":{{}},"payload":{{"op":"u","before":{{"id":1,"total":8.5}},"after":{{"id":1,"tenant":"acme","total":9}},{source}}}}}"#
    );
    let deleted = format!(r#"{{"op":"d","before":{{"id":1,"tenant":"acme"}},"after":null,{source}}}"#);
    let read = format!(r#"{{"op":"r","after":{{"id":2}},{source}}}"#);
    let not_a_change = r#"{"id":1}"#;
    let (rows, errors) = case.values(&[&created, &updated, &deleted, &read, not_a_change, "null"]);
    let line = |index: usize, id: &str, total: &str| {
        let time = "\"event_time\":\"2026-03-01T12:00:00Z\"";
        format!("{index}: {{\"tenant_id\":\"acme\",{time},\"event_id\":\"{id}\",\"total\":{total},\"city\":\"o\"}}")
    };
    assert_eq!(rows, [line(0, "c/5/1", "8.5"), line(1, "u/5/1", "0.5"), line(2, "d/5/1", "0.0")]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].message == 4 && errors[0].detail.contains("no `op`"), "{errors:?}");
}

/// Returns each row as its message index and the value of one column.
fn short(rows: &[String], key: &str) -> Vec<String> {
    let find = |line: &String| {
        let (index, json) = line.split_once(": ").unwrap();
        let row: serde_json::Value = serde_json::from_str(json).unwrap();
        format!("{index} {}", row[key].as_str().unwrap_or("-"))
    };
    rows.iter().map(find).collect()
}

#[test]
fn rows_keep_their_message_through_joins_filters_and_lists() {
    let some = r#"{"id":"a","restaurant":1,"items":[{"sku":"x"},{"sku":"y"}]}"#;
    let other = r#"{"id":"b","restaurant":2,"items":[]}"#;
    let none = r#"{"id":"c","restaurant":9,"items":[{"sku":"z"}]}"#;
    let city = select(", r.city");
    let id = "json_int(value, 'restaurant')";
    let cases = [
        // An inner join produces one row for each match, and drops messages without a match.
        (format!("{city} messages JOIN restaurants r ON r.id = {id}"), "city", &["0 Cusco", "0 Lima", "1 Quito"][..]),
        (
            format!("{city} messages m LEFT JOIN restaurants AS r ON r.id = {id} WHERE m.value->>'id' <> 'b'"),
            "city",
            &["0 Cusco", "0 Lima", "2 -"],
        ),
        (format!("{city} restaurants r RIGHT JOIN messages ON r.id = {id}"), "city", &["0 Cusco", "0 Lima", "1 Quito", "2 -"]),
        // These statements join on conditions other than equality.
        (format!("{city} messages JOIN restaurants r ON r.id < {id} AND r.city = 'Quito'"), "city", &["2 Quito"]),
        (format!("{city} messages CROSS JOIN (SELECT max(city) AS city FROM restaurants) r"), "city", &["0 Quito", "1 Quito", "2 Quito"]),
        // A statement may contain subqueries and CTEs, and may aggregate a lookup.
        (
            format!(
                "WITH m AS (SELECT *, {id} AS place FROM messages), r AS (SELECT id, count(*) AS n, min(city) AS city \
                 FROM restaurants GROUP BY id ORDER BY id LIMIT 10) {city} m JOIN r ON r.id = m.place"
            ),
            "city",
            &["0 Cusco", "1 Quito"],
        ),
        (format!("{} messages WHERE {id} IN (SELECT id FROM restaurants)", select("")), "event_id", &["0 a", "1 b"]),
        (
            format!("{} messages WHERE NOT EXISTS (SELECT 1 FROM restaurants r WHERE r.id = {id})", select("")),
            "event_id",
            &["2 c"],
        ),
        (
            format!("{} messages", select(&format!(", (SELECT max(r.city) FROM restaurants r WHERE r.id = {id}) AS city"))),
            "city",
            &["0 Lima", "1 Quito", "2 -"],
        ),
        // A statement may produce one row for each element of a list.
        (
            "SELECT key AS tenant_id, time AS event_time, id || '-' || (item->>'sku') AS event_id FROM \
             (SELECT key, time, value->>'id' AS id, unnest(json_array(value, 'items')) AS item FROM messages) AS lines"
                .to_owned(),
            "event_id",
            &["0 a-x", "0 a-y", "2 c-z"],
        ),
        (
            "SELECT t.tenant_id, t.event_time, t.event_id, r.name AS city FROM \
             (SELECT key AS tenant_id, time AS event_time, value->>'id' AS event_id, json_int(value, 'restaurant') AS id \
              FROM messages) t JOIN restaurants r USING (id) WHERE r.city IS NOT NULL AND r.city > 'D'"
                .to_owned(),
            "city",
            &["0 Taco Uno", "1 Dos"],
        ),
    ];
    for (sql, key, expected) in cases {
        let (rows, errors) = Case::new(&sql).values(&[some, other, none]);
        assert_eq!(short(&rows, key), expected, "{sql}");
        assert_eq!(errors, [], "{sql}");
    }
}

#[test]
fn statements_that_depend_on_batch_boundaries_are_refused() {
    let columns = select("");
    let cases = [
        ("SELECT 1; SELECT 2".to_owned(), "more than one statement"),
        (String::new(), "empty"),
        ("DELETE FROM messages".to_owned(), "one SELECT"),
        ("CREATE TABLE t AS SELECT * FROM messages".to_owned(), "one SELECT"),
        ("COPY messages TO '/tmp/x.csv'".to_owned(), "one SELECT"),
        ("EXPLAIN SELECT * FROM messages".to_owned(), "one SELECT"),
        ("SET x = 1".to_owned(), "one SELECT"),
        (format!("{columns} messages LIMIT 3"), "LIMIT"),
        (format!("{columns} messages ORDER BY offset"), "ORDER BY"),
        (columns.replace("SELECT", "SELECT DISTINCT") + " messages", "DISTINCT"),
        (
            "SELECT key AS tenant_id, max(time) AS event_time, min(topic) AS event_id FROM messages GROUP BY key"
                .into(),
            "GROUP BY",
        ),
        (format!("{} messages", select(", row_number() OVER (ORDER BY offset) AS items")), "window functions"),
        (format!("{columns} messages UNION ALL {columns} messages"), "more than once"),
(
            "SELECT a.key AS tenant_id, a.time AS event_time, a.topic AS event_id FROM messages a JOIN messages b USING (key)".into(),
            "more than once",
        ),
        (format!("{columns} messages WHERE offset IN (SELECT max(offset) FROM messages)"), "more than once"),
        (format!("{columns} (SELECT * FROM messages LIMIT 2)"), "LIMIT"),
        (
            "SELECT 'a' AS tenant_id, now() AS event_time, 'x' AS event_id FROM restaurants \
             WHERE id IN (SELECT offset FROM messages)"
                .into(),
            "`now`",
        ),
        (
            "SELECT name AS tenant_id, TIMESTAMP '2026-01-01' AS event_time, city AS event_id FROM restaurants \
             WHERE id IN (SELECT offset FROM messages)"
                .into(),
            "does not read",
        ),
        ("SELECT 'a' AS tenant_id, TIMESTAMP '2026-01-01' AS event_time, 'x' AS event_id".to_owned(), "does not read"),
        (format!("{columns} messages RIGHT JOIN restaurants r ON r.id = partition"), "do not come from a message"),
        (format!("{columns} messages FULL JOIN restaurants r ON r.id = partition"), "do not come from a message"),
        (format!("{columns} restaurants r LEFT JOIN messages ON r.id = partition"), "do not come from a message"),
        (format!("{} messages", select(", random() AS total")), "`random`"),
        (columns.replace("time AS", "now() AS") + " messages", "`now`"),
        (format!("{} messages", select(", 1 AS __message_index")), "`__message_index`"),
        (format!("{columns} '/etc/passwd'"), "/etc/passwd"),
        (format!("{columns} read_csv('/etc/passwd')"), "read_csv"),
        (format!("{columns} mesages"), "did you mean `messages`"),
        (format!("{columns} messages JOIN restaurant r ON true"), "did you mean `restaurants`"),
        (format!("{columns} information_schema.tables"), "tables"),
        (format!("{columns} messages WHERE offst > 3"), "did you mean `offset`"),
        (format!("{columns} messages WHERE value ->> 1.5 = 'x'"), "a string or an integer"),
        (format!("{columns} messages WHERE json_text(offset, 'a') = 'x'"), "takes a JSON string"),
        (format!("{columns} messages WHERE"), "cannot be parsed"),
    ];
    for (sql, expected) in cases {
        let error = Case::new(&sql).transform().expect_err(&sql);
        assert_eq!(error.kind(), Kind::Invalid, "{sql}: {error:?}");
        let message = error.message();
        assert!(message.starts_with("sources.shop.transform: ") && message.contains(expected), "{sql}\n  {message}");
    }
}

#[test]
fn columns_are_checked_against_the_table_at_planning() {
    let columns = select("");
    let unowned = "SELECT time AS event_time, value->>'id' AS event_id FROM messages";
    let cases = [
        (format!("{} messages", select(", 1 AS totl")), "no column `totl`, did you mean `total`?"),
        (format!("{} messages", select(", 1 AS zzzzzz")), "it has tenant_id, event_time"),
        (format!("{} messages", select(", value->>'total'")), "no column `json_text"),
        (format!("{} messages", select(", time AS received_time")), "set by the server"),
        (format!("{} messages", select(", 1 AS total, 2.0 AS total")), "total"),
        (format!("{} messages", select(", value->>'total' AS total")), "expects float64"),
        (format!("{} messages", select(", json_array(value) AS city")), "`city`"),
        (format!("{} messages", select(", headers AS city")), "`city`"),
        (
            columns.replace("time AS event_time, ", "") + " messages",
            "no `event_time`, the time column of table `orders`",
        ),
        (columns.replace("AS event_id", "AS city") + " messages", "no `event_id`, the id"),
        (
            unowned.to_owned(),
            "no `tenant_id`, the tenant column of table `orders`; add the column, or set the source's `tenant`",
        ),
        ("SELECT * FROM messages".to_owned(), "no column `value`"),
    ];
    for (sql, expected) in cases {
        let error = Case::new(&sql).transform().expect_err(&sql);
        assert!(error.kind() == Kind::Invalid && error.message().contains(expected), "{sql}\n  {error:?}");
    }
    let mut owned = Case::new(unowned);
    owned.source.tenant = TenantFrom::Key;
    owned.transform().unwrap();
}

#[test]
fn each_failing_message_is_reported_with_its_own_reason() {
    let sql = format!(
        "{} messages",
        select(", CAST(value->>'total' AS DOUBLE) AS total, 12 / json_int(value, 'by') AS items")
    );
    let case = Case::new(&sql);
    let good = |id: usize| format!("{{\"id\":\"{id}\",\"total\":\"1.5\",\"by\":2}}");
    for bad in [&[][..], &[0], &[99], &[0, 1, 50, 51, 98, 99], &(0..100).collect::<Vec<_>>()] {
        let values: Vec<String> = (0..100)
            .map(|id| match bad.contains(&id) {
                true if id % 2 == 0 => good(id).replace("1.5", "many"),
                true => good(id).replace(":2", ":0"),
                false => good(id),
            })
            .collect();
        let (rows, errors) = case.values(&values.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(rows.len(), 100 - bad.len(), "{bad:?}");
        assert_eq!(errors.iter().map(|error| error.message).collect::<Vec<_>>(), bad);
        for MessageError { message, reason, detail } in &errors {
            let expected = if message % 2 == 0 { "'many'" } else { "ivide by zero" };
            assert!(*reason == Reason::TransformFailed && detail.contains(expected), "{detail}");
        }
    }
}

/// A lookup table can contain rows of other tenants than the message, and a tenant can read its quarantine.
#[test]
fn errors_reveal_no_value_of_a_lookup_table() {
    for (join, expected) in [
        ("CAST(r.city AS BIGINT) = json_int(value, 'r')", "use TRY_CAST"),
        ("CAST(r.city AS UUID) = value->>'id'", "an expression cannot be computed"),
        ("12 / (r.id - 3) = json_int(value, 'r')", "division by zero"),
    ] {
        let case = Case::new(&format!("{} messages JOIN restaurants r ON {join}", select("")));
        let (rows, errors) = case.values(&[r#"{"id":"a","r":1}"#]);
        let detail = &errors[0].detail;
        assert!(rows.is_empty() && detail.contains(expected), "{rows:?} {detail}");
        assert!(!["Lima", "Cusco", "Quito"].iter().any(|city| detail.contains(city)), "{detail}");
    }
}

#[test]
fn statements_use_the_dialect_of_queries() {
    let latest = "(SELECT city FROM restaurants r WHERE r.id = CAST(value->>'r' AS INT) ORDER BY city LIMIT 1)";
    let cases = [
        (", json_int(value, 'n') + 1 AS items", r#"{"n":1}"#, Ok(r#""items":2"#)),
        (", json_int(value, 'n') + 1 AS items", r#"{"n":9223372036854775807}"#, Err("verflow")),
        (", 0.1 + 0.2 AS total", "{}", Ok(r#""total":0.3}"#)),
        (", json_float(value, 'x') * 1.1 AS total", r#"{"x":0.5}"#, Ok(r#""total":0.55"#)),
        (", CAST(2.5 AS BIGINT) AS items", "{}", Ok(r#""items":3"#)),
        (&format!(", {latest} AS city"), r#"{"r":"1"}"#, Ok(r#""city":"Cusco""#)),
    ];
    for (more, value, expected) in cases {
        let case = Case::new(&format!("{} messages", select(more)));
        let value = value.replacen('{', r#"{"id":"a","#, 1).replace(",}", "}");
        let (rows, errors) = case.values(&[&value]);
        match expected {
            Ok(text) => assert!(rows.concat().contains(text) && errors.is_empty(), "{more}: {rows:?} {errors:?}"),
            Err(text) => assert!(rows.is_empty() && errors[0].detail.contains(text), "{more}: {rows:?} {errors:?}"),
        }
    }
    let refused = Case::new(&format!("{} messages TABLESAMPLE BERNOULLI (10)", select(""))).transform().unwrap_err();
    assert!(refused.message().contains("TABLESAMPLE"), "{refused}");
}

#[test]
fn accept_may_refuse_the_rows_of_one_message() {
    let (case, runtime) = (Case::new(&format!("{} messages", select(""))), Runtime::new().unwrap());
    let values: Vec<String> = (0..20).map(|id| format!("{{\"id\":\"{id}\"}}")).collect();
    let messages: Vec<_> = values.iter().enumerate().map(|(offset, value)| message(offset, value)).collect();
    let accept = |rows: Rows| match rows.messages.contains(&13) {
        true => Err(Error::invalid("unlucky")),
        false => Ok(rows.messages.len()),
    };
    let outcome = case.transform().unwrap().run(&messages, runtime.handle(), accept).unwrap();
    assert_eq!((outcome.parts.iter().sum::<usize>(), outcome.messages), (19, 20));
    let expected = MessageError { message: 13, reason: Reason::TransformFailed, detail: "unlucky".to_owned() };
    assert_eq!(outcome.errors, [expected]);
}

#[test]
fn joins_that_multiply_rows_are_limited() {
    let many = (0..2_000).fold("id,city\n".to_owned(), |csv, id| csv + &format!("{id},c\n"));
    let joined = format!("{} messages JOIN places r ON true JOIN places s ON true", select(", r.city"));
    let dropped = format!("{joined} WHERE r.id + s.id < -json_int(value, 'n')");
    let alone = [message(0, r#"{"id":"a","n":1}"#)];
    let mut two = alone.to_vec();
    two.push(message(1, r#"{"id":"b","n":2}"#));

    let mut case = Case::new(&joined).with("places", &many);
    case.limits.transform_rows_max = 50_000;
    let (rows, errors) = case.run(&alone).unwrap();
    assert!(rows.is_empty() && errors[0].reason == Reason::TooLarge, "{errors:?}");
    assert!(errors[0].detail.contains("ingest.transform_rows_max"), "{errors:?}");
    assert_eq!(case.run(&two).unwrap().1.len(), 2, "each message exceeds the limit on its own");

    case.limits.transform_memory_bytes_max = 1 << 20;
    assert!(case.run(&alone).unwrap().1[0].detail.contains("ingest.transform_memory_bytes_max"));

    // All rows of this statement are discarded by the filter above its joins, and the deadline still applies.
    let mut case = Case::new(&dropped).with("places", &many);
    case.limits.transform_time_max = Duration::from_millis(1);
    assert!(case.run(&alone).unwrap().1[0].detail.contains("ingest.transform_time_max"));
    let limited = case.run(&two).unwrap_err();
    assert_eq!((limited.kind(), limited.wait()), (Kind::Limited, None), "a smaller batch may succeed");
}

#[test]
fn rows_of_many_messages_together_are_limited() {
    let sql = format!("{} messages JOIN restaurants ON true", select(""));
    let mut case = Case::new(&sql);
    case.limits.transform_rows_max = 10;
    let values: Vec<String> = (0..8).map(|id| format!("{{\"id\":\"{id}\"}}")).collect();
    let messages: Vec<_> = values.iter().enumerate().map(|(offset, value)| message(offset, value)).collect();
    assert_eq!(case.run(&messages[..2]).unwrap().0.len(), 8);
    assert_eq!(case.run(&messages).unwrap_err().kind(), Kind::Limited);
}

#[test]
fn an_empty_batch_has_no_rows() {
    let case = Case::debezium(&format!("{} messages", select("")));
    assert_eq!(case.values(&[]), (vec![], vec![]));
    assert_eq!(case.run(&[Message { value: None, ..message(0, "") }]).unwrap(), (vec![], vec![]));
}

#[test]
fn a_byte_order_mark_at_the_start_of_a_message_is_not_part_of_its_value() {
    let sql =
        "SELECT key AS tenant_id, time AS event_time, CAST(octet_length(value) AS TEXT) AS event_id FROM messages";
    let (rows, errors) = Case::new(sql).values(&["\u{feff}{}", "{}", "\u{feff}\u{feff}{}", "\u{feff}"]);
    assert_eq!(
        errors.iter().map(|error| (error.message, error.reason)).collect::<Vec<_>>(),
        [(2, Reason::Malformed), (3, Reason::Malformed)]
    );
    assert!(rows.len() == 2 && rows.iter().all(|row| row.contains(r#""event_id":"2""#)), "{rows:?}");

    let sql = "SELECT key AS tenant_id, time AS event_time, op || (row->>'id') AS event_id FROM messages";
    let change = r#"{"op":"c","after":{"id":7},"source":{}}"#;
    let wrapped = format!("\u{feff}{{\"schema\":null,\"payload\":{change}}}");
    let sent = [&format!("\u{feff}{change}"), &wrapped, "\u{feff}null"];
    let (rows, errors) = Case::debezium(sql).values(&sent);
    assert_eq!(errors, []);
    assert!(rows.len() == 2 && rows.iter().all(|row| row.contains(r#""event_id":"c7""#)), "{rows:?}");
}
