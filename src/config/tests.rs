//! Tests that parse whole configurations and check the values or the errors.

use std::path::Path;
use std::time::Duration;

use super::*;

const BASE: &str = "/etc/glasshouse";

/// The keys that every configuration must have. The tests add them to each test case, so that it causes only the errors
/// that the test expects.
const REQUIRED: &str = "
    [lake]
    url = \"memory:///\"
    [auth.issuers.dev]
    issuer = \"https://dev\"
    audience = \"glasshouse\"
    algorithms = [\"HS256\"]
    secret = \"0123456789abcdef0123456789abcdef\"
";

fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::parse(text, "t.toml", Path::new(BASE), env)
}

#[track_caller]
pub(super) fn good(text: &str, env: &[(&str, &str)]) -> Config {
    parse(&format!("{text}\n{REQUIRED}"), env).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// Parses `text` together with the required keys, and returns the errors.
#[track_caller]
pub(super) fn errors(text: &str, env: &[(&str, &str)]) -> String {
    match parse(&format!("{text}\n{REQUIRED}"), env) {
        Ok(_) => panic!("no error in {text} {env:?}"),
        Err(errors) => errors.to_string(),
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn defaults_are_within_their_own_bounds() {
    let shown = Config { lake: LakeConfig::default(), ..good("", &[]) }.show(false);
    let again = shown.replace("secret = \"(redacted)\"", "secret = \"0123456789abcdef0123456789abcdef\"");
    let read = parse(&again, &[]).unwrap_or_else(|errors| panic!("{again}\n{errors}"));
    assert_eq!(read.show(false), shown, "the shown configuration can be read and has the same values");
}

#[test]
fn values_have_units() {
    let config = good(
        "[ingest]\nbatch_bytes_max = \"8 MiB\"\nbatch_age_max = \"250ms\"\nbody_bytes_max = 4096\n\
         [query]\ntime_max = \"15m\"\nrows_max = 1_000",
        &[],
    );
    assert_eq!(config.ingest.batch_bytes_max, 8 << 20);
    assert_eq!(config.ingest.batch_age_max, Duration::from_millis(250));
    assert_eq!(config.ingest.body_bytes_max, 4_096);
    assert_eq!(config.query.time_max, Duration::from_secs(900));
    assert_eq!(config.query.rows_max, 1_000);
}

#[test]
fn environment_variables_override_the_file() {
    let env = [
        ("GLASSHOUSE__QUERY__ROWS_MAX", "77"),
        ("GLASSHOUSE__INGEST__QUEUE_BYTES_MAX", "1 GiB"),
        ("GLASSHOUSE__LAKE__URL", "s3://bucket/prefix"),
        ("GLASSHOUSE__LAKE__OPTIONS__AWS_ENDPOINT", "http://127.0.0.1:9000"),
        ("GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET", "0123456789abcdef0123456789abcdef"),
        ("GLASSHOUSE__AUTH__ISSUERS__DEV__OPERATORS", "one, two"),
        ("GLASSHOUSE__FLIGHT__TYPES", "native"),
        ("GLASSHOUSE__TABLES__CALLS__RETENTION_DAYS", "30"),
        ("GLASSHOUSE_TOKEN", "not ours"),
    ];
    let config = good(
        "query.rows_max = 5\n[tables.calls]\nproto = \"c.proto\"\nmessage = \"C\"\n\
                       tenant = \"a\"\ntime = \"b\"\nid = \"c\"",
        &env,
    );
    assert_eq!(config.query.rows_max, 77);
    assert_eq!(config.ingest.queue_bytes_max, 1 << 30);
    assert_eq!(config.lake.url, "s3://bucket/prefix");
    assert_eq!(config.lake.options["aws_endpoint"], "http://127.0.0.1:9000");
    let dev = &config.auth.issuers["dev"];
    assert_eq!(dev.secret.as_ref().unwrap().expose(), "0123456789abcdef0123456789abcdef");
    assert_eq!(dev.operators, ["one", "two"]);
    assert_eq!(config.flight.types, TypeProfile::Native);
    assert_eq!(config.tables["calls"].retention_days, 30);
}

#[test]
fn all_errors_are_reported_with_their_locations() {
    let text = "[ingest]\nbatch_rowz_max = 5\nbatch_age_max = 3\n[quarry]\nx = 1\n[lake]\nurl = \"ftp://a\"";
    let env = [("GLASSHOUSE__QUERY__ROWS_MAX", "0"), ("GLASSHOUSE__HTPP__LISTEN", "x")];
    insta::assert_snapshot!(parse(text, &env.map(|(k, v)| (k, v))).unwrap_err().to_string());
}

#[test]
fn errors_state_the_allowed_values() {
    let cases = [
        ("ingest.batch_rows_max = 0", "t.toml:1:8: ingest.batch_rows_max: must be 1 to 5000000 rows, but is 0"),
        ("ingest.batch_rows_max = -1", "must be 1 to 5000000 rows, but is -1"),
        ("ingest.batch_rows_max = \"5\"", "must be an integer, but is a string"),
        ("ingest.batch_rows_max = 5.5", "must be an integer, but is a floating-point number"),
        (
            "ingest.batch_bytes_max = \"8 MB\"",
            "must be a size such as \"64 MiB\" or a number of bytes, but is \"8 MB\"",
        ),
        ("ingest.batch_bytes_max = \"99999999999 TiB\"", "must be a size"),
        ("ingest.batch_age_max = 5", "a time needs a unit, such as \"5s\" or \"5ms\""),
        ("ingest.batch_age_max = \"1 fortnight\"", "must be a time such as"),
        ("ingest.batch_age_max = \"1d\"", "must be 5ms to 5m, but is \"1d\""),
        ("query.time_max = \"13h\"", "lake.removed_retention: must be at least twice `query.time_max`"),
        ("flight.handle_age_max = \"13h\"", "lake.removed_retention: must be at least twice `flight.handle_age_max`"),
        ("flight.plaintext_allowed = \"yes\"", "must be true or false, but is a string"),
        ("flight.types = \"nativ\"", "must be \"compat\" or \"native\", but is \"nativ\", did you mean `native`?"),
        ("http.listen = \"localhost\"", "must be an address and a port"),
        ("http = 5", "is a section, not an integer"),
        ("tables = 5", "must be a table with one entry per name"),
        ("log.level = \"glasshouse=loud\"", "is not a valid filter"),
        ("auth.handle_secret = \"short\"", "must have at least 32 bytes"),
        ("tables.x.tenant = \"\"", "tables.x.tenant: must not be empty"),
    ];
    for (text, expected) in cases {
        let given = errors(text, &[]);
        assert!(given.contains(expected), "{text}\n  gives {given}\n  not   {expected}");
    }
    let given = errors("", &[("GLASSHOUSE__LAKE__LOG_RETENTION", "1h")]);
    assert!(given.contains("lake.log_retention: must be at least `lake.removed_retention`"), "{given}");
}

/// Returns the section of the table `name`. It ends with the lines in `more`.
fn table(name: &str, more: &str) -> String {
    format!("[tables.{name}]\ntenant = \"who\"\ntime = \"at\"\nid = \"key\"\n{more}\n")
}

const COLUMNS: &str =
    "columns = { who = \"text\", at = \"timestamp\", key = \"text\", mos = { type = \"float64\", unit = \"score\" } }";

#[test]
fn columns_keep_the_order_of_the_file() {
    let config = good(&table("calls", COLUMNS), &[]);
    let calls = &config.tables["calls"];
    let names: Vec<_> = calls.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["who", "at", "key", "mos"]);
    assert_eq!((calls.columns[3].kind.as_str(), calls.columns[3].unit.as_str()), ("float64", "score"));
}

#[test]
fn a_table_declared_by_columns_has_a_map_by_default() {
    let map = |more: &str, columns: &str| {
        good(&table("t", &format!("{more}\n{columns}")), &[]).tables["t"].dimensions_map.clone()
    };
    assert_eq!(map("", COLUMNS), "dimensions");
    assert_eq!(map("dimensions_map = \"\"", COLUMNS), "");
    assert_eq!(map("dimensions_map = \"rest\"", COLUMNS), "rest");
    assert_eq!(map("", &COLUMNS.replace("mos", "dimensions")), "", "another column has the default name");
    let proto = "proto = \"c.proto\"\nmessage = \"C\"";
    assert_eq!(map("", proto), "");
}

#[test]
fn errors_of_tables_and_policies_are_reported() {
    let two = |columns: &str, more: &str| format!("{}{more}", table("calls", columns));
    let cases = [
        (table("calls_quarantine", COLUMNS), "is reserved for rejected events"),
        (table("Calls", COLUMNS), "tables.Calls: is not a valid name"),
        (table("a__b", COLUMNS), "tables.a__b: is not a valid name"),
        (table("calls", ""), "has no columns"),
        (table("calls", &format!("proto = \"x\"\n{COLUMNS}")), "cannot be combined with `proto`"),
        (table("calls", "proto = \"x\""), "has no `message`"),
        (table("calls", &format!("flatten = [\"a\"]\n{COLUMNS}")), "can only be used with `proto`"),
        (table("calls", &COLUMNS.replace("mos", "received_time")), "the server adds"),
        (table("calls", &COLUMNS.replace("mos", "event_date")), "the server adds"),
        (table("calls", &COLUMNS.replace("mos", "MOS")), "columns.MOS: is not a valid name"),
        (table("calls", &COLUMNS.replace("float64", "flaot64")), "unknown type `flaot64`, did you mean `float64`?"),
        (table("calls", &COLUMNS.replace("who", "hwo")), "unknown column `who`, did you mean `hwo`?"),
        (
            table("calls", &format!("metrics = [\"moss\"]\n{COLUMNS}")),
            "metrics[0]: unknown column `moss`, did you mean `mos`?",
        ),
        (
            table("calls", &format!("dimensions_map = \"mos\"\n{COLUMNS}")),
            "`mos` has the type float64; it must be a map",
        ),
        (table("calls", COLUMNS).replace("\"at\"\nid", "\"who\"\nid"), "must be three different columns"),
        (two(COLUMNS, "[policy.call]"), "unknown table `call`, did you mean `calls`?"),
        (two(COLUMNS, "[policy.calls]\ncolumns = [\"mso\"]"), "policy.calls.columns[0]: unknown column `mso`"),
        (
            two(COLUMNS, "[policy.calls]\nrows = [{ column = \"x\", claim = \"c\" }]"),
            "rows[0].column: unknown column `x`",
        ),
        (two(COLUMNS, "[policy.calls]\nrows = [{ column = \"mos\" }]"), "rows[0].claim: is missing"),
        (
            two(COLUMNS, "[policy.calls]\nrows = [{ column = \"mos\", claim = \"c\", requird = 1 }]"),
            "did you mean `required`?",
        ),
    ];
    for (text, expected) in cases {
        let given = errors(&text, &[]);
        assert!(given.contains(expected), "{text}\n  gives {given}\n  not   {expected}");
    }
}

#[test]
fn latest_is_read_and_its_columns_must_exist() {
    let columns = COLUMNS.replace("mos = ", "item = \"text\", gone = \"bool\", mos = ");
    let with = |latest: &str| table("calls", &format!("latest = {latest}\n{columns}"));
    let latest = |text: &str| good(text, &[]).tables["calls"].latest.clone();
    let full = latest(&with("{ key = [\"item\"], by = \"at\", deleted = \"gone\" }")).unwrap();
    assert_eq!((full.key, full.by, full.deleted), (vec!["item".to_owned()], "at".to_owned(), Some("gone".to_owned())));
    assert_eq!(latest(&with("{ key = [\"item\"], by = \"received_time\" }")).unwrap().deleted, None);
    assert!(latest(&table("calls", &columns)).is_none());
    let shown = good(&with("{ key = [\"item\"], by = \"at\" }"), &[]).show(false);
    assert!(shown.contains("latest = { key = [\"item\"], by = \"at\" }"), "{shown}");

    let both = format!("{}{}", with("{ key = [\"item\"], by = \"at\" }"), table("calls_changes", COLUMNS));
    let cases = [
        (with("\"item\""), "calls.latest: must be a table, such as { key = [\"order_id\"], by = \"version\""),
        (with("{ by = \"at\" }"), "calls.latest.key: is missing"),
        (with("{ key = [], by = \"at\" }"), "calls.latest.key: must not be empty"),
        (with("{ key = [\"item\"] }"), "calls.latest.by: is missing"),
        (with("{ key = [\"item\"], by = \"at\", delete = \"gone\" }"), "did you mean `deleted`?"),
        (with("{ key = [\"itme\"], by = \"at\" }"), "latest.key[0]: unknown column `itme`, did you mean `item`?"),
        (with("{ key = [\"received_time\"], by = \"at\" }"), "latest.key[0]: unknown column `received_time`"),
        (with("{ key = [\"item\"], by = \"att\" }"), "latest.by: unknown column `att`, did you mean `at`?"),
        (with("{ key = [\"item\"], by = \"at\", deleted = \"goen\" }"), "latest.deleted: unknown column `goen`"),
        (both, "tables.calls_changes: is reserved for all versions of `calls`: rename one"),
    ];
    for (text, expected) in cases {
        let given = errors(&text, &[]);
        assert!(given.contains(expected), "{text}\n  gives {given}\n  not   {expected}");
    }
    good(&format!("{}{}", table("calls", COLUMNS), table("calls_changes", COLUMNS)), &[]);
}

/// Returns the section of the table `calls`, and the section of the source `one`, which ends with `lines`.
fn source(lines: &str) -> String {
    let required = "kind = \"kafka\"\nbrokers = [\"a:9092\", \"b:9092\"]\ntopics = [\"calls.v1\"]\ngroup = \"us\"";
    format!("{}\n[sources.one]\n{required}\n{lines}", table("calls", COLUMNS))
}

#[test]
fn the_keys_of_a_source_are_read() {
    let one = |lines: &str, env: &[(&str, &str)]| {
        good(&source(&format!("table = \"calls\"\n{lines}")), env).sources["one"].clone()
    };
    let plain = one("", &[]);
    assert_eq!((plain.kind, plain.format, plain.on_gap), (SourceKind::Kafka, SourceFormat::Json, OnGap::Stop));
    assert_eq!((plain.tenant, plain.start), (TenantFrom::Event, StartAt::Earliest));
    assert_eq!(one("tenant = { key = true }", &[]).tenant, TenantFrom::Key);
    assert_eq!(one("tenant = { header = \"who\" }", &[]).tenant, TenantFrom::Header("who".into()));
    assert_eq!(one("tenant.value = \"acme\"", &[]).tenant, TenantFrom::Value("acme".into()));
    assert_eq!(one("start = \"1970-01-01T01:00:01+01:00\"", &[]).start, StartAt::Time(1_000));

    let env = [
        ("GLASSHOUSE__SOURCES__ONE__OPTIONS__SASL_PASSWORD", "hunter2"),
        ("GLASSHOUSE__SOURCES__ONE__TENANT__VALUE", "globex"),
    ];
    let options = "[sources.one.options]\nsecurity.protocol = \"SASL_SSL\"\n\"sasl.username\" = \"hunter2\"\n\
                   socket.keepalive.enable = true\nlog_level = 6";
    let secret = one(options, &env);
    let given: Vec<_> = secret.options.expose().collect();
    let expected = [
        ("log_level", "6"),
        ("sasl.password", "hunter2"),
        ("sasl.username", "hunter2"),
        ("security.protocol", "SASL_SSL"),
        ("socket.keepalive.enable", "true"),
    ];
    assert_eq!(given, expected);
    assert_eq!(secret.tenant, TenantFrom::Value("globex".into()));
    let config = good(&source(&format!("table = \"calls\"\n{options}")), &env);
    for text in [config.show(true), format!("{config:?}"), format!("{secret:?}"), format!("{:?}", secret.options)] {
        assert!(!text.contains("hunter2") && text.contains("SASL_SSL"), "{text}");
    }
    let shown = config.show(false);
    assert!(shown.contains("\"sasl.password\" = \"(redacted)\""), "{shown}");
}

#[test]
fn errors_of_a_source_are_reported() {
    let required = "table = \"calls\"";
    let with = |lines: &str| source(&format!("{required}\n{lines}"));
    let cases = [
        (source(""), "sources.one.table: is missing"),
        (source("table = \"call\""), "sources.one.table: unknown table `call`, did you mean `calls`?"),
        (
            with("format = \"protobuf\""),
            "sources.one.format: table `calls` is declared as a list of columns: use `json`",
        ),
        (with("format = \"arvo\""), "did you mean `avro`?"),
        (with("strat = \"latest\""), "unknown key, did you mean `start`?"),
        (with("start = \"yesterday\""), "must be \"earliest\", \"latest\" or a time such as"),
        (with("start = \"1969-01-01T00:00:00Z\""), "or a time such as"),
        (with("on_gap = \"latest\""), "must be \"stop\" or \"earliest\""),
        (with("tenant = { key = true, value = \"a\" }"), "sources.one.tenant: must be one of"),
        (with("tenant = {}"), "sources.one.tenant: must be one of"),
        (with("tenant = { header = \"\" }"), "sources.one.tenant: must be one of"),
        (with("tenant = { claim = \"a\" }"), "tenant.claim: unknown key"),
        (with("tenant = \"acme\""), "must be one of { key = true }"),
        (with("options.group.id = \"other\""), "options.group.id: is not allowed in `options`: set `group`"),
        (with("options.auto_offset_reset = \"latest\""), "set `start` and `on_gap`"),
        (with("options.sasl.password = \"(redacted)\""), "is the placeholder"),
        (with("").replace("calls.v1", "^calls"), "topics[0]: is not a valid topic name"),
        (with("").replace("b:9092", ""), "brokers[1]: must not be empty"),
        (with("").replace("\"b:9092\"", "\"b:9092,c:9092\""), "brokers[1]: must be a single `host:port`"),
        (with("").replace("\"kafka\"", "\"kinesis\""), "must be \"kafka\""),
    ];
    for (text, expected) in cases {
        let given = errors(&text, &[]);
        assert!(given.contains(expected), "{text}\n  gives {given}\n  not   {expected}");
    }
}

/// Parses a configuration with one issuer, whose section ends with `lines`.
fn issuer(lines: &str) -> Result<Config, ConfigErrors> {
    let required = REQUIRED.split("[auth").next().unwrap_or_default();
    parse(&format!("{required}\n[auth.issuers.one]\nissuer = \"https://one\"\naudience = \"us\"\n{lines}"), &[])
}

#[test]
fn algorithms_must_fit_the_key_of_the_issuer() {
    let secret = "secret = \"0123456789abcdef0123456789abcdef\"";
    let good = [
        format!("algorithms = [\"HS256\"]\n{secret}"),
        "algorithms = [\"RS256\", \"ES256\", \"EdDSA\"]\njwks_file = \"keys.json\"".to_owned(),
        "algorithms = [\"PS512\"]\njwks_url = \"https://login.example.com/keys\"".to_owned(),
        "algorithms = [\"PS512\"]\njwks_url = \"http://127.0.0.1:9/keys\"".to_owned(),
        "algorithms = [\"PS512\"]\njwks_url = \"http://[::1]:9/keys\"".to_owned(),
    ];
    for lines in good {
        assert!(issuer(&lines).is_ok(), "{lines}\n{}", issuer(&lines).unwrap_err());
    }
    let cases = [
        (format!("algorithms = [\"none\"]\n{secret}"), "never accepted"),
        (format!("algorithms = [\"NoNe\"]\n{secret}"), "never accepted"),
        (format!("algorithms = [\"HS265\"]\n{secret}"), "unknown algorithm `HS265`, did you mean `HS256`?"),
        (format!("algorithms = [\"RS256\"]\n{secret}"), "RS256 needs a public key, not a `secret`"),
        (format!("algorithms = [\"HS256\", \"RS256\"]\n{secret}"), "RS256 needs a public key"),
        (format!("algorithms = [\"HS512\"]\n{secret}"), "must have at least 64 bytes for HS512"),
        ("algorithms = [\"HS256\"]\nsecret = \"short\"".to_owned(), "must have at least 32 bytes for HS256"),
        ("algorithms = [\"HS256\"]\npem_file = \"key.pem\"".to_owned(), "HS256 needs a `secret`"),
        (format!("algorithms = [\"HS256\"]\n{secret}\npem_file = \"k\""), "exactly one of"),
        (format!("algorithms = [\"HS256\"]\n{secret}\nsecret_file = \"s\""), "exactly one of"),
        ("algorithms = [\"RS256\"]\nsecret_file = \"s\"".to_owned(), "RS256 needs a public key, not a `secret`"),
        ("algorithms = [\"RS256\"]".to_owned(), "exactly one of"),
        (format!("algorithms = []\n{secret}"), "algorithms: must not be empty"),
        (secret.to_owned(), "algorithms: is missing"),
        ("algorithms = [\"RS256\"]\njwks_url = \"http://login.example.com/k\"".to_owned(), "must be https"),
        ("algorithms = [\"RS256\"]\njwks_url = \"http://127.0.0.1.evil.example/k\"".to_owned(), "must be https"),
        ("algorithms = [\"RS256\"]\njwks_url = \"file:///etc/k\"".to_owned(), "must be https"),
        (
            "algorithms = [\"RS256\"]\njwks_url = \"https://me:hunter2@a.test/k\"".to_owned(),
            "must not contain credentials",
        ),
        (
            "algorithms = [\"RS256\"]\njwks_file = \"k\"\nca_file = \"ca.pem\"".to_owned(),
            "only be used with `jwks_url`",
        ),
        ("algorithms = [\"HS256\"]\nsecret = \"(redacted)\"".to_owned(), "placeholder"),
    ];
    for (lines, expected) in cases {
        let given = issuer(&lines).expect_err(&lines).to_string();
        assert!(given.contains(expected), "{lines}\n  gives {given}\n  not   {expected}");
    }
}

#[test]
fn endpoints_are_not_exposed_by_mistake() {
    let dev = |listen: &str| parse(&format!("{listen}\n{REQUIRED}"), &[]);
    let open = "flight.plaintext_allowed = true\nflight.listen = \"0.0.0.0:1\"";
    assert!(!dev("").unwrap().is_exposed());
    assert!(good(open, &[]).flight.plaintext_allowed && good(open, &[]).is_exposed());
    let cases = [
        ("flight.listen = \"0.0.0.0:1\"", "0.0.0.0:1 would accept tokens in plain text"),
        ("flight.listen = \"[::]:1\"", "would accept tokens in plain text"),
        ("http.listen = \"10.0.0.1:1\"", "http.plaintext_allowed"),
        ("flight.tls_cert = \"c.pem\"", "must be set together"),
        ("flight.tls_key = \"c.pem\"", "must be set together"),
        ("flight.tls_client_ca = \"c.pem\"", "needs `tls_cert` and `tls_key`"),
        ("http.listen = \"127.0.0.1:8815\"", "is also the address of flight.listen"),
    ];
    for (text, expected) in cases {
        let given = errors(text, &[]);
        assert!(given.contains(expected), "{text}\n  gives {given}\n  not   {expected}");
    }
}

#[test]
fn a_lake_is_a_url_or_a_folder_relative_to_the_file() {
    let url = |url: &str| parse(REQUIRED, &[("GLASSHOUSE__LAKE__URL", url)]);
    assert_eq!(url("data/lake").unwrap().lake.url, "file:///etc/glasshouse/data/lake/");
    assert_eq!(url("s3://bucket/a").unwrap().lake.url, "s3://bucket/a");
    for wrong in ["", "gs://bucket", "s3:///a", "file://host/a", "s3://key:secret@bucket/a"] {
        assert!(url(wrong).is_err(), "{wrong}");
    }
    let shown = url("s3://key:secret@bucket/a").unwrap_err().to_string();
    assert!(!shown.contains("secret@"), "{shown}");
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let config = good("flight.tls_cert = \"tls/c.pem\"\nflight.tls_key = \"/k.pem\"", &[]);
    assert_eq!(config.flight.tls_cert.as_deref(), Some(Path::new("/etc/glasshouse/tls/c.pem")));
    assert_eq!(config.flight.tls_key.as_deref(), Some(Path::new("/k.pem")));
}

#[test]
fn named_files_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let load = |path: &Path| Config::load(Some(path), std::iter::empty()).map_err(|errors| errors.to_string());
    assert!(load(&path).unwrap_err().contains("c.toml: cannot be opened"));
    fs::write(&path, format!("flight.tls_cert = \"c.pem\"\nflight.tls_key = \"k.pem\"\n{REQUIRED}")).unwrap();
    fs::write(folder.path().join("k.pem"), "").unwrap();
    let given = load(&path).unwrap_err();
    assert!(given.contains("c.toml:1:8: flight.tls_cert: file not found:"), "{given}");
    assert!(!given.contains("tls_key"), "{given}");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(load(&path).unwrap_err().contains("cannot be read"));
}

#[test]
fn an_empty_configuration_reports_the_required_keys() {
    let given = Config::load(None, std::iter::empty()).unwrap_err().to_string();
    assert_eq!(
        given,
        "configuration: auth.issuers: no issuer is configured, so every request would be refused: add [auth.issuers.NAME]\n\
         configuration: lake.url: is missing: set it to a string"
    );
}

#[test]
fn secrets_are_never_shown() {
    let env = [
        ("GLASSHOUSE__LAKE__OPTIONS__AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("GLASSHOUSE__LAKE__OPTIONS__AWS_REGION", "eu-central-1"),
        ("GLASSHOUSE__AUTH__HANDLE_SECRET", "hunter2-hides-in-the-tall-brown-grass"),
        ("GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET", "hunter2-hides-in-the-tall-brown-grass"),
    ];
    let config = good("", &env);
    let shown = config.show(true);
    for text in [&shown, &format!("{config:?}"), &format!("{:?}", config.lake), &format!("{:?}", config.auth)] {
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("(redacted)"), "{text}");
    }
    assert!(shown.contains("aws_region = \"eu-central-1\""), "{shown}");
}

#[test]
fn config_show_documents_every_key() {
    let mut config = Config { tables: [("example".to_owned(), TableConfig::default())].into(), ..Config::default() };
    config.policy.insert("example".to_owned(), PolicyConfig::default());
    config.auth.issuers.insert("example".to_owned(), IssuerConfig::default());
    config.sources.insert("example".to_owned(), SourceConfig::default());
    insta::assert_snapshot!(config.show(true));
}

#[test]
fn the_reference_configuration_is_valid() {
    let config = Config::load(Some(&repository().join(FILE)), std::iter::empty());
    let config = config.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.tables.keys().collect::<Vec<_>>(), ["call_events", "flights"]);
    assert_eq!(config.auth.issuers["dev"].secret_file, Some(repository().join("glasshouse.secret")));
    let secret = ("GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET", "0123456789abcdef0123456789abcdef");
    let variables = [secret].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let overridden = Config::load(Some(&repository().join(FILE)), variables.into_iter()).unwrap();
    let dev = &overridden.auth.issuers["dev"];
    assert!(dev.secret_file.is_none() && dev.secret.is_some(), "the variable overrides the file's key");
    let folder = format!("{}/", repository().display());
    insta::assert_snapshot!(config.show(false).replace(&folder, "REPOSITORY/"));
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = repository().join("docs/configuration.md");
    let page = reference_page::page();
    if std::env::var_os("INSTA_UPDATE").is_some_and(|mode| mode == "always") {
        fs::write(&path, &page).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(current == page, "docs/configuration.md is out of date: run INSTA_UPDATE=always cargo test --lib config::");
}
