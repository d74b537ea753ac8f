//! Checks that involve several keys or files: names that must exist, keys that exclude or require each other, files
//! that must exist.
//!
//! The format and range of each value were already checked when the value was read. This module also makes all
//! paths absolute. Only [`files`] accesses the disk, to check whether files exist.

use std::collections::BTreeSet;
use std::path::PathBuf;

use url::Url;

use super::collection_values::check_name;
use super::column_kind::ColumnKind;
use super::error::ConfigErrors;
use super::secret_strength;
use super::tables::{CHANGES_SUFFIX, QUARANTINE_SUFFIX, RESERVED_PREFIX};
use super::{Config, PolicyConfig, TableConfig, check_auth, check_sources, lookups, memory};
use crate::error::did_you_mean;

/// The columns that the contract adds to every table.
const RESERVED_COLUMNS: [&str; 2] = ["received_time", "event_date"];

/// Resolves every path against the folder of the configuration file, and converts the folder of a lake to a `file://`
/// URL.
pub(super) fn resolve(config: &mut Config, errors: &mut ConfigErrors) {
    let base = config.base.clone();
    for (_, path) in paths(config) {
        *path = base.join(&*path);
    }
    check_auth::override_secrets(&mut config.auth, errors);
    // `paths` does not return these files, because commands may create them. `tenancy` reads them.
    let secrets = config.auth.issuers.values_mut().filter_map(|issuer| issuer.secret_file.as_mut());
    for file in secrets.chain(&mut config.auth.revocations_file) {
        *file = base.join(&*file);
    }
    // `paths` does not return the files of lookup tables, because they do not have to exist yet. A source waits until
    // its lookup tables can be loaded.
    for file in config.lookups.values_mut().filter_map(|lookup| lookup.file.as_mut()) {
        *file = base.join(&*file);
    }
    if let Some(problem) = secret_strength::shell_path(&config.lake.url) {
        errors.add("lake.url", problem);
    }
    if !config.lake.url.contains("://") {
        match Url::from_directory_path(base.join(&config.lake.url)) {
            Ok(url) => config.lake.url = url.into(),
            Err(()) => {
                errors.add("lake.url", "is a relative folder, but the current folder is unknown: use an absolute path")
            }
        }
    }
}

/// Returns the path of every file that must exist, with the key that names it.
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

/// Checks that all files that are named in the configuration exist, except the files of lookup tables.
pub(super) fn files(config: &Config, errors: &mut ConfigErrors) {
    for (key, path) in paths(&mut config.clone()) {
        if !path.is_file() {
            errors.add(&key, format!("file not found: {}", path.display()));
        }
    }
}

/// Checks that the sections are consistent with each other.
pub(super) fn across(config: &Config, errors: &mut ConfigErrors) {
    for (name, declared) in &config.tables {
        table(name, declared, errors);
        let changes = format!("{name}{CHANGES_SUFFIX}");
        if declared.latest.is_some() && config.tables.contains_key(&changes) {
            let message = format!("is reserved for all versions of `{name}`: rename one of the two tables");
            errors.add(&format!("tables.{changes}"), message);
        }
    }
    for (name, policy) in &config.policy {
        let key = format!("policy.{name}");
        match (config.tables.get(name), config.lookups.get(name)) {
            (Some(table), _) => columns_of_policy(&key, policy, table, errors),
            (None, Some(lookup)) => lookups::policy(&key, name, lookup, policy, errors),
            (None, None) => {
                let guess = did_you_mean(name, config.tables.keys().chain(config.lookups.keys()).map(String::as_str));
                errors.add(&key, format!("unknown table `{name}`{guess}"));
            }
        }
    }
    check_sources::sources(config, errors);
    lookups::across(config, errors);
    lake(&config.lake.url, errors);
    removed_files(config, errors);
    check_auth::auth(&config.auth, errors);
    check_auth::endpoints(config, errors);
    memory::across(config, errors);
    if let Err(error) = config.log.level.parse::<tracing_subscriber::EnvFilter>() {
        errors.add("log.level", format!("is not a valid filter such as \"info,glasshouse=debug\": {error}"));
    }
}

fn table(name: &str, table: &TableConfig, errors: &mut ConfigErrors) {
    let key = format!("tables.{name}");
    if name.ends_with(QUARANTINE_SUFFIX) {
        errors.add(
            &key,
            format!("a name that ends in `{QUARANTINE_SUFFIX}` is reserved for rejected events: rename the table"),
        );
    }
    if name.starts_with(RESERVED_PREFIX) {
        let message = format!(
            "a name that begins with `{RESERVED_PREFIX}` is reserved for the server's own tables: rename the table"
        );
        errors.add(&key, message);
    }
    retention(&key, table, errors);
    match (&table.proto, table.columns.is_empty()) {
        (Some(_), false) => {
            errors.add(&format!("{key}.columns"), "cannot be combined with `proto`: remove one of them")
        }
        (None, true) => errors.add(&key, "has no columns: set `proto` and `message`, or `columns`"),
        (Some(_), true) if table.message.is_none() => {
            errors.add(&key, "has no `message`: set the full name of a message in `proto`");
        }
        _ => {}
    }
    for (field, set) in [
        ("message", table.message.is_some()),
        ("flatten", !table.flatten.is_empty()),
        ("ignore", !table.ignore.is_empty()),
    ] {
        if set && table.proto.is_none() {
            errors.add(&format!("{key}.{field}"), "can only be used with `proto`");
        }
    }
    if table.proto.is_none() {
        columns_of_table(&key, table, errors);
    }
}

/// Checks a table without `proto`: its columns, and the keys that name columns.
fn columns_of_table(key: &str, table: &TableConfig, errors: &mut ConfigErrors) {
    for column in &table.columns {
        let key = format!("{key}.columns.{}", column.name);
        check_name(&column.name, &key, errors);
        if RESERVED_COLUMNS.contains(&column.name.as_str()) {
            errors.add(&key, "is a column that the server adds to every table: rename it");
        }
        if let Some(Err(error)) = (!column.kind.is_empty()).then(|| ColumnKind::parse(&column.kind)) {
            errors.add(&key, error);
        }
    }
    let maps = table.columns.iter().filter(|column| column.kind == "map").count();
    if maps > 1 {
        errors.add(&format!("{key}.columns"), "a table can have at most one map column, which stores unknown fields");
    }
    let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let singles = [("tenant", &table.tenant), ("time", &table.time), ("id", &table.id)];
    for (field, name) in singles.into_iter().filter(|(_, name)| !name.is_empty()) {
        must_be_one_of(&format!("{key}.{field}"), name, &names, errors);
    }
    for (field, list) in [("times", &table.times), ("dimensions", &table.dimensions), ("metrics", &table.metrics)] {
        for (index, name) in list.iter().enumerate() {
            must_be_one_of(&format!("{key}.{field}[{index}]"), name, &names, errors);
        }
    }
    latest_of_table(key, table, &names, errors);
    let keys: BTreeSet<_> = singles.into_iter().map(|(_, name)| name).filter(|name| !name.is_empty()).collect();
    let set_count = singles.into_iter().filter(|(_, name)| !name.is_empty()).count();
    if keys.len() < set_count {
        errors.add(key, "`tenant`, `time` and `id` must be three different columns");
    }
    map_of_table(key, table, errors);
}

/// Checks that no tenant has a longer retention than the table, and that a `latest` table has no retention.
fn retention(key: &str, table: &TableConfig, errors: &mut ConfigErrors) {
    let (days, tenants) = (table.retention_days, &table.retention_tenants);
    for (field, is_set) in [("retention_days", days > 0), ("retention_tenants", !tenants.is_empty())] {
        if is_set && table.latest.is_some() {
            let message = "cannot be used with `latest`, because rows that have not changed for a long time would disappear: \
                 remove one of them";
            errors.add(&format!("{key}.{field}"), message);
        }
    }
    for (tenant, own) in tenants.iter().filter(|(_, own)| days > 0 && **own > days) {
        let message = format!(
            "is {own} days, but `retention_days` of the table is {days}: set at most {days} days, or raise `retention_days`"
        );
        errors.add(&format!("{key}.retention_tenants.{tenant}"), message);
    }
}

fn map_of_table(key: &str, table: &TableConfig, errors: &mut ConfigErrors) {
    let key = format!("{key}.dimensions_map");
    let name = &table.dimensions_map;
    if name.is_empty() {
        return;
    }
    check_name(name, &key, errors);
    if RESERVED_COLUMNS.contains(&name.as_str()) {
        errors.add(&key, format!("`{name}` is a column that the server adds to every table: use another name"));
    }
    let declared = table.columns.iter().find(|column| column.name == *name);
    if let Some(column) = declared.filter(|column| column.kind != "map") {
        errors.add(&key, format!("column `{name}` has the type {}; it must be a map", column.kind));
    }
    let other = table.columns.iter().find(|column| column.kind == "map" && column.name != *name);
    if let Some(other) = other {
        errors.add(&key, format!("`{0}` is already a map column: set dimensions_map = \"{0}\"", other.name));
    }
}

/// Checks that the columns of `latest` exist. The contract checks the types of these columns.
fn latest_of_table(key: &str, table: &TableConfig, names: &[&str], errors: &mut ConfigErrors) {
    let Some(latest) = &table.latest else { return };
    for (index, name) in latest.key.iter().enumerate() {
        must_be_one_of(&format!("{key}.latest.key[{index}]"), name, names, errors);
    }
    if !latest.by.is_empty() && latest.by != RESERVED_COLUMNS[0] {
        must_be_one_of(&format!("{key}.latest.by"), &latest.by, names, errors);
    }
    if let Some(name) = &latest.deleted {
        must_be_one_of(&format!("{key}.latest.deleted"), name, names, errors);
    }
}

fn must_be_one_of(key: &str, name: &str, names: &[&str], errors: &mut ConfigErrors) {
    if !names.contains(&name) {
        errors.add(key, format!("unknown column `{name}`{}", did_you_mean(name, names.iter().copied())));
    }
}

/// Checks the columns that a policy names. Skips tables with `proto`, because only the contract knows their columns.
/// The server checks the policies of such tables at startup.
fn columns_of_policy(key: &str, policy: &PolicyConfig, table: &TableConfig, errors: &mut ConfigErrors) {
    if table.proto.is_some() {
        return;
    }
    let declared = table.columns.iter().map(|column| column.name.as_str());
    let map = Some(table.dimensions_map.as_str()).filter(|name| !name.is_empty());
    let names: Vec<&str> = declared.chain(map).chain(RESERVED_COLUMNS).collect();
    for (index, name) in policy.columns.iter().enumerate() {
        must_be_one_of(&format!("{key}.columns[{index}]"), name, &names, errors);
    }
    for (index, rule) in policy.rows.iter().enumerate().filter(|(_, rule)| !rule.column.is_empty()) {
        must_be_one_of(&format!("{key}.rows[{index}].column"), &rule.column, &names, errors);
    }
}

/// Checks that queries can read removed files until they end, and that the log names all files that are kept.
fn removed_files(config: &Config, errors: &mut ConfigErrors) {
    let removed = config.lake.removed_retention;
    for (key, time) in
        [("query.time_max", config.query.time_max), ("flight.handle_age_max", config.flight.handle_age_max)]
    {
        if removed < time * 2 {
            let message = format!("must be at least twice `{key}`, so that queries can read removed files");
            errors.add("lake.removed_retention", message);
        }
    }
    if config.lake.log_retention < removed {
        let message =
            "must be at least `lake.removed_retention`, because a version needs both its files and its log entries";
        errors.add("lake.log_retention", message);
    }
}

fn lake(url: &str, errors: &mut ConfigErrors) {
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => return errors.add("lake.url", format!("is not a valid URL: {error}")),
    };
    match url.scheme() {
        "memory" => {}
        "file" if matches!(url.host_str(), None | Some("")) => {}
        "file" => errors.add("lake.url", "must have three slashes, as in file:///path"),
        "s3" if url.host_str().is_some_and(|host| !host.is_empty()) => {}
        "s3" => errors.add("lake.url", "has no bucket: use s3://bucket/prefix"),
        other => errors.add("lake.url", format!("unknown scheme `{other}`: use file, s3 or memory")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        errors.add("lake.url", "must not contain credentials: set them in lake.options");
    }
}
