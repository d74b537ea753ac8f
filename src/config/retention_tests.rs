//! Tests of the keys that declare how long events are kept.

use super::tests::{errors, good};

/// Returns the section of a table that ends with `lines`.
fn table(name: &str, lines: &str) -> String {
    let columns = "{ who = \"text\", at = \"timestamp\", key = \"text\", item = \"text\" }";
    format!("[tables.{name}]\ntenant = \"who\"\ntime = \"at\"\nid = \"key\"\ncolumns = {columns}\n{lines}\n")
}

#[test]
fn the_retention_is_read_and_shown() {
    let config = good(&table("calls", "retention_days = 90\nretention_tenants = { acme = 30, \"a b\" = 90 }"), &[]);
    let tenants = [("acme".to_owned(), 30), ("a b".to_owned(), 90)];
    assert_eq!(config.tables["calls"].retention_tenants, tenants.into());
    assert_eq!(config.ingest.quarantine_retention_days, 30);
    let shown = config.show(false);
    assert!(shown.contains("[tables.calls.retention_tenants]\n\"a b\" = 90\nacme = 30\n"), "{shown}");
}

#[test]
fn invalid_retentions_are_refused() {
    for (name, lines, expected) in [
        ("glasshouse_x", "", "begins with `glasshouse_` is reserved for the server's own tables: rename the table"),
        (
            "calls",
            "retention_days = 7\nretention_tenants = { acme = 8 }",
            "calls.retention_tenants.acme: is 8 days, but `retention_days` of the table is 7: set at most 7 days",
        ),
        ("calls", "retention_tenants = { acme = 0 }", "retention_tenants.acme: must be 1 to 36500 days, but is 0"),
        ("calls", "retention_tenants = 8", "must be a table with one entry per name, but is an integer"),
        (
            "calls",
            "retention_days = 7\nlatest = { key = [\"item\"], by = \"at\" }",
            "tables.calls.retention_days: cannot be used with `latest`",
        ),
        (
            "calls",
            "retention_tenants = { acme = 7 }\nlatest = { key = [\"item\"], by = \"at\" }",
            "tables.calls.retention_tenants: cannot be used with `latest`",
        ),
    ] {
        let error = errors(&table(name, lines), &[]);
        assert!(error.contains(expected), "{lines}: {error}");
    }
}
