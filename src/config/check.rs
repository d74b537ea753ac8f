//! Checks across keys: names that must exist, keys that belong together, files that must exist.
//!
//! In: a configuration whose every value is within its own bounds. Out: the same with absolute paths, and errors.
//! Only [`files`] accesses the disk, and only checks whether a file exists.

use std::collections::BTreeSet;
use std::path::PathBuf;

use url::Url;

use super::collections::check_name;
use super::error::ConfigErrors;
use super::tables::{CHANGES_SUFFIX, COLUMN_KINDS, QUARANTINE_SUFFIX};
use super::{Config, PolicyConfig, TableConfig, check_auth, lookups, memory, sources};
use crate::error::did_you_mean;

/// Columns that every table has; the contract adds them.
const RESERVED_COLUMNS: [&str; 2] = ["received_time", "event_date"];

/// Resolves every path against the folder of the file; a lake in a folder becomes a `file://` URL.
pub(super) fn resolve(config: &mut Config, faults: &mut ConfigErrors) {
    let base = config.base.clone();
    for (_, path) in paths(config) {
        *path = base.join(&*path);
    }
    // Not among the files that must exist: a lookup table may be written later, and a source waits for it.
    for file in config.lookups.values_mut().filter_map(|lookup| lookup.file.as_mut()) {
        *file = base.join(&*file);
    }
    if !config.lake.url.contains("://") {
        match Url::from_directory_path(base.join(&config.lake.url)) {
            Ok(url) => config.lake.url = url.into(),
            Err(()) => faults.add("lake.url", "a folder requires a configuration file with an absolute path"),
        }
    }
}

/// Every file that is named, with its key.
fn paths(config: &mut Config) -> Vec<(String, &mut PathBuf)> {
    let tables = config.tables.iter_mut().map(|(name, table)| (format!("tables.{name}.proto"), table.proto.as_mut()));
    let issuers = config.auth.issuers.iter_mut().flat_map(|(name, issuer)| {
        let key = |field| format!("auth.issuers.{name}.{field}");
        [
            (key("pem_file"), issuer.pem_file.as_mut()),
            (key("jwks_file"), issuer.jwks_file.as_mut()),
            (key("ca_file"), issuer.ca_file.as_mut()),
        ]
    });
    let sources = config.sources.iter_mut().flat_map(|(name, source)| {
        let key = |field| format!("sources.{name}.{field}");
        [
            (key("transform_file"), source.transform_file.as_mut()),
            (key("schema_file"), source.schema_file.as_mut()),
            (key("ca_file"), source.ca_file.as_mut()),
            (key("oauth.ca_file"), source.oauth.as_mut().and_then(|oauth| oauth.ca_file.as_mut())),
            (key("registry.ca_file"), source.registry.as_mut().and_then(|registry| registry.ca_file.as_mut())),
        ]
    });
    let lookups = config.lookups.iter_mut().map(|(name, lookup)| {
        let key = format!("lookups.{name}.ca_file");
        (key, lookup.ca_file.as_mut())
    });
    let flight = [
        ("flight.tls_cert".to_owned(), config.flight.tls_cert.as_mut()),
        ("flight.tls_key".to_owned(), config.flight.tls_key.as_mut()),
        ("flight.tls_client_ca".to_owned(), config.flight.tls_client_ca.as_mut()),
    ];
    tables
        .chain(sources)
        .chain(lookups)
        .chain(issuers)
        .chain(flight)
        .filter_map(|(key, path)| Some((key, path?)))
        .collect()
}

/// Checks that every file exists.
pub(super) fn files(config: &Config, faults: &mut ConfigErrors) {
    for (key, path) in paths(&mut config.clone()) {
        if !path.is_file() {
            faults.add(&key, format!("file not found: {}", path.display()));
        }
    }
}

/// Checks sections against each other.
pub(super) fn across(config: &Config, faults: &mut ConfigErrors) {
    for (name, declared) in &config.tables {
        table(name, declared, faults);
        let changes = format!("{name}{CHANGES_SUFFIX}");
        if declared.latest.is_some() && config.tables.contains_key(&changes) {
            let fault = format!("is reserved for all versions of `{name}`: rename one of the two tables");
            faults.add(&format!("tables.{changes}"), fault);
        }
    }
    for (name, policy) in &config.policy {
        let key = format!("policy.{name}");
        match config.tables.get(name) {
            Some(table) => columns_of_policy(&key, policy, table, faults),
            None => {
                let guess = did_you_mean(name, config.tables.keys().map(String::as_str));
                faults.add(&key, format!("unknown table `{name}`{guess}"));
            }
        }
    }
    sources::across(config, faults);
    lookups::across(config, faults);
    lake(&config.lake.url, faults);
    check_auth::auth(&config.auth, faults);
    check_auth::endpoints(config, faults);
    memory::across(config, faults);
    if let Err(error) = config.log.level.parse::<tracing_subscriber::EnvFilter>() {
        faults.add("log.level", format!("is not a valid filter such as \"info,glasshouse=debug\": {error}"));
    }
}

fn table(name: &str, table: &TableConfig, faults: &mut ConfigErrors) {
    let key = format!("tables.{name}");
    if name.ends_with(QUARANTINE_SUFFIX) {
        faults.add(&key, format!("a name that ends in `{QUARANTINE_SUFFIX}` is reserved for rejected events"));
    }
    match (&table.proto, table.columns.is_empty()) {
        (Some(_), false) => {
            faults.add(&format!("{key}.columns"), "cannot be combined with `proto`: declare the events once")
        }
        (None, true) => faults.add(&key, "has no columns: set `proto` and `message`, or `columns`"),
        (Some(_), true) if table.message.is_none() => {
            faults.add(&key, "has no `message`: set the full name of a message in `proto`");
        }
        _ => {}
    }
    for (field, set) in [
        ("message", table.message.is_some()),
        ("flatten", !table.flatten.is_empty()),
        ("ignore", !table.ignore.is_empty()),
    ] {
        if set && table.proto.is_none() {
            faults.add(&format!("{key}.{field}"), "belongs to a table with `proto`");
        }
    }
    if table.proto.is_none() {
        columns_of_table(&key, table, faults);
    }
}

/// Checks the columns of a table that is declared by them, and that its keys name them.
fn columns_of_table(key: &str, table: &TableConfig, faults: &mut ConfigErrors) {
    for column in &table.columns {
        let key = format!("{key}.columns.{}", column.name);
        check_name(&column.name, &key, faults);
        if RESERVED_COLUMNS.contains(&column.name.as_str()) {
            faults.add(&key, "is a column that the server itself adds to every table");
        }
        if !column.kind.is_empty() && !COLUMN_KINDS.contains(&column.kind.as_str()) {
            let guess = did_you_mean(&column.kind, COLUMN_KINDS);
            let known = COLUMN_KINDS.join(", ");
            faults.add(&key, format!("unknown type `{}`{guess}; types are {known}", column.kind));
        }
    }
    let maps = table.columns.iter().filter(|column| column.kind == "map").count();
    if maps > 1 {
        faults.add(&format!("{key}.columns"), "a table can have at most one map, which stores unknown fields");
    }
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let singles = [("tenant", &table.tenant), ("time", &table.time), ("id", &table.id)];
    for (field, name) in singles.into_iter().filter(|(_, name)| !name.is_empty()) {
        must_be_one_of(&format!("{key}.{field}"), name, &names, faults);
    }
    for (field, list) in [("times", &table.times), ("dimensions", &table.dimensions), ("metrics", &table.metrics)] {
        for (index, name) in list.iter().enumerate() {
            must_be_one_of(&format!("{key}.{field}[{index}]"), name, &names, faults);
        }
    }
    latest_of_table(key, table, &names, faults);
    let keys: BTreeSet<_> = singles.into_iter().map(|(_, name)| name).filter(|name| !name.is_empty()).collect();
    let said = singles.into_iter().filter(|(_, name)| !name.is_empty()).count();
    if keys.len() < said {
        faults.add(key, "`tenant`, `time` and `id` must be three columns");
    }
    map_of_table(key, table, faults);
}

fn map_of_table(key: &str, table: &TableConfig, faults: &mut ConfigErrors) {
    let key = format!("{key}.dimensions_map");
    let name = &table.dimensions_map;
    if name.is_empty() {
        return;
    }
    check_name(name, &key, faults);
    if RESERVED_COLUMNS.contains(&name.as_str()) {
        faults.add(&key, format!("`{name}` is a column that the server itself adds to every table"));
    }
    let declared = table.columns.iter().find(|column| column.name == *name);
    if let Some(column) = declared.filter(|column| column.kind != "map") {
        faults.add(&key, format!("column `{name}` is {}, not a map", column.kind));
    }
    let other = table.columns.iter().find(|column| column.kind == "map" && column.name != *name);
    if let Some(other) = other {
        faults.add(&key, format!("`{}` is already a map: set dimensions_map to it", other.name));
    }
}

/// Checks the columns of `latest`; the contract checks their types.
fn latest_of_table(key: &str, table: &TableConfig, names: &[&str], faults: &mut ConfigErrors) {
    let Some(latest) = &table.latest else { return };
    for (index, name) in latest.key.iter().enumerate() {
        must_be_one_of(&format!("{key}.latest.key[{index}]"), name, names, faults);
    }
    if !latest.by.is_empty() && latest.by != RESERVED_COLUMNS[0] {
        must_be_one_of(&format!("{key}.latest.by"), &latest.by, names, faults);
    }
    if let Some(name) = &latest.deleted {
        must_be_one_of(&format!("{key}.latest.deleted"), name, names, faults);
    }
}

fn must_be_one_of(key: &str, name: &str, names: &[&str], faults: &mut ConfigErrors) {
    if !names.contains(&name) {
        faults.add(key, format!("unknown column `{name}`{}", did_you_mean(name, names.iter().copied())));
    }
}

/// Only the contract knows the columns of a table with `proto`; the server checks them at startup.
fn columns_of_policy(key: &str, policy: &PolicyConfig, table: &TableConfig, faults: &mut ConfigErrors) {
    if table.proto.is_some() {
        return;
    }
    let declared = table.columns.iter().map(|column| column.name.as_str());
    let map = Some(table.dimensions_map.as_str()).filter(|name| !name.is_empty());
    let names: Vec<&str> = declared.chain(map).chain(RESERVED_COLUMNS).collect();
    for (index, name) in policy.columns.iter().enumerate() {
        must_be_one_of(&format!("{key}.columns[{index}]"), name, &names, faults);
    }
    for (index, rule) in policy.rows.iter().enumerate().filter(|(_, rule)| !rule.column.is_empty()) {
        must_be_one_of(&format!("{key}.rows[{index}].column"), &rule.column, &names, faults);
    }
}

fn lake(url: &str, faults: &mut ConfigErrors) {
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => return faults.add("lake.url", format!("is not a valid URL: {error}")),
    };
    match url.scheme() {
        "memory" => {}
        "file" if matches!(url.host_str(), None | Some("")) => {}
        "file" => faults.add("lake.url", "a file URL has three slashes: file:///path"),
        "s3" if url.host_str().is_some_and(|host| !host.is_empty()) => {}
        "s3" => faults.add("lake.url", "names no bucket: s3://bucket/prefix"),
        other => faults.add("lake.url", format!("unknown store `{other}`: use file, s3 or memory")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        faults.add("lake.url", "must not contain credentials: set them in lake.options");
    }
}
