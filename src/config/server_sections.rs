//! The sections `[ingest]`, `[lake]`, `[maintenance]`, `[query]`, `[flight]`, `[http]`, `[shutdown]` and `[log]`.
//!
//! This file declares the type, unit, default, bounds and documentation of each key. From these declarations, the macro
//! in `section_macro.rs` generates the structs and the code that reads them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::section_macro::{bytes, count, none, plain, required, section, time};
use super::{LogFormat, TypeProfile};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// Returns the loopback address with the given port. Only this host can reach this address.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

section! {
    /// The settings of ingest: batches, queues and limits.
    IngestConfig {
        /// The number of rows at which a batch is committed.
        batch_rows_max: usize = count("rows", 100_000, 1..=5_000_000),
            "Each batch becomes one file. Larger files scan and compress better; smaller batches need less memory";
        /// The in-memory size at which a batch is committed.
        batch_bytes_max: usize = bytes(64 * MIB, 4 * KIB..=4 * GIB),
            "This limits the memory that a table with wide rows uses";
        /// A batch is committed when its first row reaches this age.
        batch_age_max: Duration = time(SECOND, 5 * MILLISECOND..=5 * MINUTE),
            "The default leaves a second for the commit, so queries show events within two seconds";
        /// The maximum total size of the events that wait for a commit, across all tables. A request that would exceed
        /// this limit is refused, and the error says when to retry.
        queue_bytes_max: usize = bytes(256 * MIB, 64 * KIB..=64 * GIB),
            "At the full ingest rate, the default is enough if the store is slow for a few seconds. If senders retry, no \
             event is lost";
        /// How long a request may wait for free space in the queue.
        queue_wait_max: Duration = time(SECOND, Duration::ZERO..=MINUTE),
            "The default equals the default of `batch_age_max`. The requests of a short burst wait; during a longer \
             burst, requests are refused and senders have to retry";
        /// The maximum size of a request body. It applies to both the compressed and the decompressed body.
        body_bytes_max: usize = bytes(32 * MIB, KIB..=GIB),
            "Each body is held in memory as a whole, and many bodies arrive at the same time";
        /// The maximum factor by which a body may grow during decompression.
        body_expansion_max: usize = count("times", 100, 1..=10_000),
            "Events usually expand by a factor of 10 to 30, and a decompression bomb by a factor of 1,000";
        /// The maximum size of one event.
        event_bytes_max: usize = bytes(256 * KIB, 64..=16 * MIB),
            "An event is a small record, not a document. Larger events are rejected and stored in the quarantine";
        /// The maximum number of entries in one event's dimensions map.
        dimensions_max: usize = count("entries", 64, 0..=10_000),
            "Unknown fields are kept, but one sender's mistake must not fill the table";
        /// For each table, the number of event ids that are kept in memory to detect duplicates of recent events.
        dedupe_ids_max: usize = count("ids", 5_000_000, 1..=1_000_000_000),
            "Each id needs about 26 bytes. To find duplicates of older events, the server searches the files by id and \
             time";
        /// How far ahead of the server's clock an event's time may be.
        future_max: Duration = time(15 * MINUTE, Duration::ZERO..=366 * DAY),
            "Clocks drift by seconds. A time far in the future usually means a wrong unit or time zone, and such an \
             event would remain the newest event for a long time";
        /// The maximum number of rejected events that a receipt lists. Further rejected events are only counted.
        receipt_rejects_max: usize = count("events", 100, 0..=100_000),
            "A few examples are enough to find the mistake. All rejected events are in the quarantine";
        /// The number of days to keep the entries of all quarantines; 0 keeps them forever.
        quarantine_retention_days: u32 = count("days", 30, 0..=36_500),
            "Rejected events contain personal data like all others. A month is enough to find the mistake and to replay them";
        /// The maximum number of attempts to commit one batch.
        commit_attempts_max: u32 = count("attempts", 10, 1..=1_000),
            "An attempt fails if another writer commits first or the store returns an error. After the last attempt, \
             the sender must retry";
        /// The time limit for the transform of one batch. If the transform fails, the limit includes the search for the
        /// messages that cause the failure.
        transform_time_max: Duration = time(30 * SECOND, 100 * MILLISECOND..=4 * MINUTE),
            "A batch that takes longer is read again in smaller batches. The time must be below five minutes, so that \
             Kafka does not reassign the partitions while the transform runs";
        /// The memory limit for the transform of one batch, including its joins and its result.
        transform_memory_bytes_max: usize = bytes(256 * MIB, MIB..=64 * GIB),
            "A join that produces too many rows fails without affecting the rest of the server";
        /// The maximum number of rows that the transform of one batch may produce.
        transform_rows_max: usize = count("rows", 1_000_000, 1..=1_048_576),
            "The default allows sixteen rows for each message of the largest batch. A single message that produces \
             more rows is rejected and stored in the quarantine";
        /// The maximum size of a lookup table. It applies to both the file and the table in memory.
        lookup_bytes_max: usize = bytes(64 * MIB, KIB..=16 * GIB),
            "Each lookup table is held in memory and is read again at each refresh";
        /// The maximum number of rows of a lookup table.
        lookup_rows_max: usize = count("rows", 1_000_000, 1..=100_000_000),
            "Each batch's join reads all rows of the lookup table";
        /// The time limit for loading one lookup table.
        lookup_time_max: Duration = time(30 * SECOND, 100 * MILLISECOND..=10 * MINUTE),
            "A service that hangs must not delay the next attempt";
    }
}

section! {
    /// The settings of the lake, where tables are stored.
    LakeConfig {
        /// The location of the lake: `file:///path`, `s3://bucket/prefix`, `memory:///`, or the path of a folder, which
        /// may be relative to the configuration file.
        url: String = required("memory:///"),
            "There is no default, because the location of the data must be explicit";
        /// Options of the object store (`aws_endpoint`, `aws_region`, `aws_access_key_id` …). Secrets are redacted when
        /// options are shown.
        options: BTreeMap<String, String> = none(),
            "Set credentials in the environment: `GLASSHOUSE__LAKE__OPTIONS__AWS_SECRET_ACCESS_KEY`";
        /// The zstd compression level of Parquet files.
        compression_level: i32 = count("", 1, 1..=22),
            "Higher levels save a few percent of space and cost several times the CPU time";
        /// The maximum number of rows in a row group.
        row_group_rows_max: usize = count("rows", 131_072, 128..=16_777_216),
            "A writer holds one row group in memory, and a reader can skip only whole row groups";
        /// The number of commits between two checkpoints.
        checkpoint_interval: u64 = count("commits", 100, 1..=100_000),
            "To open a table, a reader loads the last checkpoint and the commits after it";
        /// How long the log entries before a checkpoint are kept.
        log_retention: Duration = time(DAY, MINUTE..=3_650 * DAY),
            "Readers that opened the table earlier still need these entries. The more entries are kept, the slower it \
             is to list the log";
        /// How long a file stays in the store after a commit has removed it from its table. At least twice the larger of
        /// `query.time_max` and `flight.handle_age_max`, and at most `log_retention`.
        removed_retention: Duration = time(DAY, HOUR..=3_650 * DAY),
            "Running queries, and readers of earlier versions, still read removed files";
        /// The age at which a file that no commit names is deleted. Such files are left by crashes.
        orphan_age_min: Duration = time(3 * DAY, DAY..=3_650 * DAY),
            "A file that is being written is not named by a commit yet";
        /// How often the server checks for commits by other writers.
        refresh_interval: Duration = time(SECOND, 10 * MILLISECOND..=HOUR),
            "Each check costs one listing of the log per table. With the default, queries see other writers' commits \
             within a second";
        /// The time limit for one request to the object store.
        request_time_max: Duration = time(30 * SECOND, 10 * MILLISECOND..=10 * MINUTE),
            "Uploading the largest file takes seconds. A store that hangs must not block a batch forever";
        /// The maximum number of retries of one request to the object store.
        request_retries_max: usize = count("retries", 5, 0..=100),
            "With exponential backoff, the default is enough for an overload of several seconds";
    }
}

section! {
    /// The settings of lake maintenance, which merges the small files of commits into larger ones.
    MaintenanceConfig {
        /// Whether this server merges files. Without merges, queries become slower with each commit.
        enabled: bool = plain(true),
            "A table gets a new file each second, and each query opens the files that may hold its rows";
        /// The CPU time that merges may use, in percent of one core; 0 means a quarter of all cores, but at least half a
        /// core. If a day has more than 256 unmerged files, the limit doubles until they are merged.
        cpu_percent_max: u32 = count("percent", 0, 0..=102_400),
            "Merges need about 1.5 microseconds of CPU time per event for each of the three times that it is merged";
        /// The memory that merges may use.
        memory_bytes_max: usize = bytes(512 * MIB, 64 * MIB..=64 * GIB),
            "A merge reads its files in steps, so their size does not matter. With less memory, a merge takes fewer files";
        /// The time after which another server does the work of a server that has died.
        lease_time_max: Duration = time(MINUTE, SECOND..=HOUR),
            "Servers tell each other in the object store what they are doing. If two servers do the same, only work is \
             lost";
    }
}

section! {
    /// The limits on queries, and the threads and memory that they use.
    QueryConfig {
        /// The time limit for one query, including planning and streaming.
        time_max: Duration = time(5 * MINUTE, MILLISECOND..=DAY),
            "A dashboard's query takes seconds, and an extract into a BI tool takes minutes";
        /// The memory limit of one query.
        memory_bytes_max: usize = bytes(GIB, MIB..=1_024 * GIB),
            "A sort or aggregation that needs more fails without affecting other queries";
        /// The maximum number of rows that one query may return.
        rows_max: usize = count("rows", 10_000_000, 1..=1_000_000_000_000),
            "The default is enough for an extract and stops an accidental cross join";
        /// The maximum size of a SQL statement.
        sql_bytes_max: usize = bytes(256 * KIB, 64..=16 * MIB),
            "BI tools generate statements with long lists, and parsing a statement needs many times its size in memory";
        /// The maximum number of queries that one tenant may run concurrently.
        tenant_queries_max: usize = count("queries", 8, 1..=10_000),
            "One dashboard sends about eight queries at the same time. Without this limit, one tenant's queries could \
             delay those of all other tenants";
        /// The maximum number of queries of one tenant that may wait for a slot.
        tenant_queue_max: usize = count("queries", 32, 0..=100_000),
            "A large dashboard sends more queries at once than may run concurrently. The others wait here";
        /// How long a query may wait for a free slot.
        tenant_queue_wait_max: Duration = time(5 * SECOND, Duration::ZERO..=10 * MINUTE),
            "After the default wait, most people reload the page and send the query again";
        /// The number of threads that plan and run the queries of each active tenant; 0 means one per core. These threads
        /// have a lower scheduling priority than all other threads.
        threads: usize = count("threads", 0, 0..=1_024),
            "The queries of one tenant may use the whole machine while no other tenant needs it. Ingest and the endpoints run on their own threads, which have a higher priority";
        /// The number of partitions in a query plan; 0 means one per core.
        partitions: usize = count("partitions", 0, 0..=1_024),
            "A single query should be able to use the whole machine";
        /// The number of rows in a record batch.
        batch_rows: usize = count("rows", 8_192, 1..=1_048_576),
            "With the default, a batch fits into the processor's caches, but is large enough to amortize the cost per \
             batch";
        /// The maximum size of the cache for Parquet metadata.
        metadata_cache_bytes_max: usize = bytes(256 * MIB, 0..=64 * GIB),
            "The default holds the metadata of several thousand files. A repeated query then does not read the \
             metadata again";
    }
}

section! {
    /// The settings of the Flight SQL endpoint.
    FlightConfig {
        /// The address to listen on.
        listen: SocketAddr = plain(loopback(8_815)),
            "By default, the server cannot be reached from the network";
        /// The server's certificate chain (PEM). Requires `tls_key`.
        tls_cert: Option<PathBuf> = none(),
            "Without TLS, anyone on the network can read tokens";
        /// The server's private key (PEM).
        tls_key: Option<PathBuf> = none(),
            "Requires `tls_cert`";
        /// CA certificates (PEM) for mutual TLS: a client must present a certificate signed by one of them.
        tls_client_ca: Option<PathBuf> = none(),
            "Tokens already authenticate clients. Use mutual TLS if the policy of your network requires it";
        /// Whether other hosts may connect to the endpoint without TLS. Set this only if the endpoint is behind a TLS
        /// proxy.
        plaintext_allowed: bool = plain(false),
            "By default, the server does not start if other hosts can reach it without TLS";
        /// The maximum size of a message that the server sends.
        message_bytes_max: usize = bytes(3 * MIB, 64 * KIB..=64 * MIB),
            "The default is below the 4 MiB that gRPC clients accept by default, and leaves space for the message's \
             metadata";
        /// The maximum size of a message that the server receives.
        message_in_bytes_max: usize = bytes(32 * MIB, 64 * KIB..=GIB),
            "ADBC sends a whole record batch as one message";
        /// The time limit for receiving one message, from its first byte to its last. It also applies to the request
        /// message of each gRPC call.
        message_in_time_max: Duration = time(MINUTE, 100 * MILLISECOND..=HOUR),
            "While a message arrives, it occupies a part of `ingest.queue_bytes_max` that other senders cannot use";
        /// The maximum size of a request's headers. The size of a header is the length of its name and value, plus 32
        /// bytes.
        header_bytes_max: u32 = bytes(32 * 1_024, 8 * 1_024..=256 * 1_024),
            "The default is large enough for the longest token, even if it is Base64-encoded again for basic \
             authentication";
        /// The maximum number of concurrent connections.
        connections_max: usize = count("connections", 512, 1..=1_000_000),
            "Each connection has its own buffers: see docs/memory.md";
        /// The maximum number of concurrent gRPC calls across all connections. Health checks are not counted.
        streams_max: usize = count("calls", 512, 1..=1_000_000),
            "A client that does not read its result keeps one message of `message_bytes_max` in memory";
        /// The maximum number of bytes that clients may have sent and the server has not read yet, across all
        /// connections.
        window_bytes_max: usize = bytes(256 * MIB, 64 * KIB..=64 * GIB),
            "Divided by `connections_max`, this limit gives the flow-control window of each connection (64 KiB to 16 \
             MiB). A client can upload at most one window per round trip";
        /// How long a ticket or a prepared-statement handle is valid.
        handle_age_max: Duration = time(HOUR, SECOND..=7 * DAY),
            "Clients fetch results within seconds after planning. A connection pool can prepare an expired statement \
             again";
        /// The set of Arrow types that results may contain, unless the client requests another type profile.
        types: TypeProfile = plain(TypeProfile::Compat),
            "`compat` uses only types that every known client can read; `native` keeps views, dictionaries and \
             unsigned integers";
    }
}

section! {
    /// The settings of the HTTP endpoint.
    HttpConfig {
        /// The address to listen on.
        listen: SocketAddr = plain(loopback(8_080)),
            "By default, the server cannot be reached from the network";
        /// Whether other hosts may connect to the endpoint. The endpoint does not support TLS, so other hosts must
        /// connect through a TLS proxy.
        plaintext_allowed: bool = plain(false),
            "By default, the server does not start if other hosts can reach its HTTP endpoint";
        /// The time limit for one request.
        request_time_max: Duration = time(MINUTE, 100 * MILLISECOND..=HOUR),
            "The limit covers the upload, the commit and the receipt. A slow sender must not occupy memory \
             indefinitely";
        /// The maximum number of concurrent connections.
        connections_max: usize = count("connections", 1_024, 1..=1_000_000),
            "Each connection has its own buffers: see docs/memory.md";
        /// The maximum size of the request line and the headers.
        header_bytes_max: usize = bytes(64 * KIB, 8 * KIB..=256 * KIB),
            "The default is eight times the default of `auth.token_bytes_max`";
        /// Whether `GET /` lists all tables that have a policy, with their descriptions, even for callers without a
        /// token.
        home_tables: bool = plain(false),
            "Table names can reveal who your customers are. `glasshouse demo` enables this setting";
    }
}

section! {
    /// The settings of a graceful shutdown.
    ShutdownConfig {
        /// The maximum time between the stop signal and the exit of the process. When three fifths of this time have
        /// passed, the server closes the connections of requests that are still running. The rest of the time is
        /// reserved for committing events that are already in the queue.
        time_max: Duration = time(25 * SECOND, SECOND..=HOUR),
            "The default is below the usual 30 seconds after which an orchestrator kills the process";
    }
}

section! {
    /// The settings of the server's log.
    LogConfig {
        /// The format of log lines: `text` for people or `json` for programs.
        format: LogFormat = plain(LogFormat::Text),
            "Text is readable on a terminal. Set `json` if a log collector reads the log";
        /// Filter directives, such as `info,glasshouse=debug`.
        level: String = plain("info"),
            "The default level logs starts, stops, refusals and errors, but not individual events";
    }
}
