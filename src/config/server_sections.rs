//! The server's own sections, in the order in which data flows: ingest, lake, query, flight, http, log.
//!
//! Each key declares its unit, default, bounds and reason once; the rest is generated from the declaration (see `key.rs`).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::key::{bytes, count, none, plain, required, section, time};
use super::{LogFormat, TypeProfile};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// An address that only this machine can reach.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

section! {
    /// Ingest: batches, queues and limits of events.
    IngestConfig {
        /// The number of rows at which a batch is committed.
        batch_rows_max: usize = count("rows", 100_000, 1..=5_000_000),
            "one batch is one file: larger ones scan and compress better, smaller ones need less memory";
        /// The size in memory at which a batch is committed.
        batch_bytes_max: usize = bytes(64 * MIB, 4 * KIB..=4 * GIB),
            "limits the memory of a table with wide rows";
        /// The age of its first row at which a batch is committed.
        batch_age_max: Duration = time(SECOND, 5 * MILLISECOND..=5 * MINUTE),
            "queries show events within two seconds, and a commit takes a part of that time";
        /// Bytes that wait for a commit, of all tables together; beyond it requests are refused with a retry time.
        queue_bytes_max: usize = bytes(256 * MIB, 64 * KIB..=64 * GIB),
            "covers some seconds of a slow store at full rate; senders that retry lose nothing";
        /// How long a request may wait for free space in the queue.
        queue_wait_max: Duration = time(SECOND, Duration::ZERO..=MINUTE),
            "the age of one batch: a shorter burst is absorbed, in a longer one senders have to retry";
        /// The size of one request's body, both compressed and decompressed.
        body_bytes_max: usize = bytes(32 * MIB, KIB..=GIB),
            "a body is held in memory as a whole, and many arrive at once";
        /// The factor by which a body may grow during decompression.
        body_expansion_max: usize = count("times", 100, 1..=10_000),
            "events compress 10 to 30 times, a decompression bomb a thousand times";
        /// The size of one event.
        event_bytes_max: usize = bytes(256 * KIB, 64..=16 * MIB),
            "an event is a fact, not a document; larger ones go to the quarantine";
        /// The number of entries in one event's dimensions map.
        dimensions_max: usize = count("entries", 64, 0..=10_000),
            "unknown fields are kept, but one sender's mistake must not fill the table";
        /// The number of newest event ids of one table that are kept in memory to detect duplicates.
        dedupe_ids_max: usize = count("ids", 5_000_000, 1..=1_000_000_000),
            "about 26 bytes of memory each; duplicates of older events are found in files, by id and time";
        /// How far ahead of the server's clock an event's time may be.
        future_max: Duration = time(15 * MINUTE, Duration::ZERO..=366 * DAY),
            "clocks drift by seconds; a time far ahead has a wrong unit or zone and would stay the newest forever";
        /// The number of rejected events listed in one receipt; the others are only counted.
        receipt_rejects_max: usize = count("reasons", 100, 0..=100_000),
            "enough to find the mistake; all rejected events are in the quarantine";
        /// The number of attempts to commit one batch.
        commit_attempts_max: u32 = count("attempts", 10, 1..=1_000),
            "an attempt fails if another writer commits first or the store fails; after the last one the sender must retry";
        /// The time limit for the transform of one batch, including the search for bad messages.
        transform_time_max: Duration = time(30 * SECOND, 100 * MILLISECOND..=4 * MINUTE),
            "a batch that takes longer is read again in smaller ones; below the five minutes after which Kafka reassigns \
             the partitions of a silent reader";
        /// The memory limit for the transform of one batch: its joins and its rows.
        transform_memory_bytes_max: usize = bytes(256 * MIB, MIB..=64 * GIB),
            "a join that multiplies its rows fails alone, without affecting the server";
        /// The number of rows that the transform of one batch may produce.
        transform_rows_max: usize = count("rows", 1_000_000, 1..=1_048_576),
            "sixteen rows for each message of the largest batch; one message that produces more goes to the quarantine";
        /// The size of one lookup table, as a file and in memory.
        lookup_bytes_max: usize = bytes(64 * MIB, KIB..=16 * GIB),
            "each is held in memory, and read again at each refresh";
        /// The number of rows of one lookup table.
        lookup_rows_max: usize = count("rows", 1_000_000, 1..=100_000_000),
            "the join of each batch reads all of them";
        /// The time limit for loading one lookup table.
        lookup_time_max: Duration = time(30 * SECOND, 100 * MILLISECOND..=10 * MINUTE),
            "a service that hangs must not delay the next attempt";
    }
}

section! {
    /// The lake: where tables are stored.
    LakeConfig {
        /// `file:///path`, `s3://bucket/prefix`, `memory:///`, or a folder, relative to the folder of this file.
        url: String = required("memory:///"),
            "the location of the data must be explicit";
        /// Options of the object store (`aws_endpoint`, `aws_region`, `aws_access_key_id` …); secrets are redacted.
        options: BTreeMap<String, String> = none(),
            "credentials come from the environment: `GLASSHOUSE__LAKE__OPTIONS__AWS_SECRET_ACCESS_KEY`";
        /// The zstd level of Parquet files.
        compression_level: i32 = count("", 1, 1..=22),
            "higher levels save a few percent of size and cost several times the CPU time";
        /// The number of rows of a row group.
        row_group_rows_max: usize = count("rows", 131_072, 128..=16_777_216),
            "the unit of memory while writing and of skipping while reading";
        /// The number of commits between two checkpoints.
        checkpoint_interval: u64 = count("commits", 100, 1..=100_000),
            "a reader opens the last checkpoint and the commits after it";
        /// How long log entries older than a checkpoint are kept.
        log_retention: Duration = time(DAY, MINUTE..=3_650 * DAY),
            "readers that opened the table earlier can continue for this time; each entry makes listings longer";
        /// How often the server checks for commits of other writers.
        refresh_interval: Duration = time(SECOND, 10 * MILLISECOND..=HOUR),
            "costs one listing of the log per table and interval, for a freshness of one second";
        /// The time limit for one request to the store.
        request_time_max: Duration = time(30 * SECOND, 10 * MILLISECOND..=10 * MINUTE),
            "the largest file takes seconds; a store that hangs must not block a batch forever";
        /// The number of retries of one request to the store.
        request_retries_max: usize = count("retries", 5, 0..=100),
            "with growing pauses, they cover some seconds of a busy store";
    }
}

section! {
    /// Queries: limits and resources.
    QueryConfig {
        /// The time limit for one query, including planning and streaming.
        time_max: Duration = time(5 * MINUTE, MILLISECOND..=DAY),
            "a dashboard waits seconds, an extract into a BI tool minutes";
        /// The memory limit of one query.
        memory_bytes_max: usize = bytes(GIB, MIB..=1_024 * GIB),
            "a larger sort or group-by fails alone, without affecting the server";
        /// The number of rows that one query may return.
        rows_max: usize = count("rows", 10_000_000, 1..=1_000_000_000_000),
            "enough for an extract, too few for an accidental cross join";
        /// The size of a statement's text.
        sql_bytes_max: usize = bytes(256 * KIB, 64..=16 * MIB),
            "BI tools write long lists into a statement; parsing needs many times its size";
        /// The number of concurrent queries of one tenant.
        tenant_queries_max: usize = count("queries", 8, 1..=10_000),
            "one dashboard sends about eight at once; more of one tenant would delay all others";
        /// The number of waiting queries of one tenant.
        tenant_queue_max: usize = count("queries", 32, 0..=100_000),
            "enough for the remaining queries of a dashboard";
        /// How long a query may wait for its turn.
        tenant_queue_wait_max: Duration = time(5 * SECOND, Duration::ZERO..=10 * MINUTE),
            "after that, a person would reload the page and query again";
        /// Threads that plan and run queries, with a lower priority than all others; 0 for one per core.
        threads: usize = count("threads", 0, 0..=1_024),
            "queries may use the whole machine; ingest and endpoints take precedence, on their own threads";
        /// The number of partitions of a plan; 0 for one per core.
        partitions: usize = count("partitions", 0, 0..=1_024),
            "a single query should use the whole machine";
        /// The number of rows of a record batch.
        batch_rows: usize = count("rows", 8_192, 1..=1_048_576),
            "fits the processor's caches, and is large enough to amortize the cost per batch";
        /// The memory for cached Parquet metadata.
        metadata_cache_bytes_max: usize = bytes(256 * MIB, 0..=64 * GIB),
            "holds some thousand files: a repeated query then reads only the data that it needs";
    }
}

section! {
    /// The Flight SQL endpoint.
    FlightConfig {
        /// The address to listen on.
        listen: SocketAddr = plain(loopback(8_815)),
            "the server is reachable from the network only if configured";
        /// The server's certificate chain (PEM); requires `tls_key`.
        tls_cert: Option<PathBuf> = none(),
            "without TLS, anybody on the network can read tokens";
        /// The server's private key (PEM).
        tls_key: Option<PathBuf> = none(),
            "required with `tls_cert`";
        /// CA certificates (PEM) that sign the certificates of accepted clients: mutual TLS.
        tls_client_ca: Option<PathBuf> = none(),
            "tokens are sufficient, unless the network's policy requires more";
        /// Allow plain text beyond loopback, for a server behind a TLS proxy.
        plaintext_allowed: bool = plain(false),
            "a server without TLS by mistake refuses to start";
        /// The size of one message sent; clients with default limits read 4 MiB.
        message_bytes_max: usize = bytes(3 * MIB, 64 * KIB..=64 * MIB),
            "below the 4 MiB that gRPC clients accept, with space for the metadata of the data";
        /// The size of one message received.
        message_in_bytes_max: usize = bytes(32 * MIB, 64 * KIB..=GIB),
            "ADBC sends a whole record batch as one message";
        /// The time limit for one message to arrive, from its first byte to its last, and for a call's request.
        message_in_time_max: Duration = time(MINUTE, 100 * MILLISECOND..=HOUR),
            "a message holds its share of `ingest.queue_bytes_max` while it arrives; a slower sender would keep it from all \
             others";
        /// The size of a request's headers; each counts 32 bytes in addition to its name and value.
        header_bytes_max: u32 = bytes(32 * 1_024, 8 * 1_024..=256 * 1_024),
            "fits the longest token, encoded again in Base64 for basic authentication";
        /// The number of concurrent connections.
        connections_max: usize = count("connections", 512, 1..=1_000_000),
            "each has its own buffers: see docs/memory.md";
        /// The number of concurrent calls, of all connections together. Health checks are not counted.
        streams_max: usize = count("calls", 512, 1..=1_000_000),
            "a client that does not read its result holds one message of `message_bytes_max` in memory";
        /// Bytes that clients have sent and the server has not read, of all connections together.
        window_bytes_max: usize = bytes(256 * MIB, 64 * KIB..=64 * GIB),
            "divided by `connections_max` it is the flow-control window of each connection, of 64 KiB to 16 MiB: a client \
             can upload at most one window per round trip";
        /// How long a ticket or a prepared handle is valid.
        handle_age_max: Duration = time(HOUR, SECOND..=7 * DAY),
            "clients fetch seconds after planning; a pooled statement is prepared again";
        /// The type profile of clients that do not request one.
        types: TypeProfile = plain(TypeProfile::Compat),
            "every known client can read it; `native` keeps views, dictionaries and unsigned numbers";
    }
}

section! {
    /// The HTTP endpoint.
    HttpConfig {
        /// The address to listen on.
        listen: SocketAddr = plain(loopback(8_080)),
            "the server is reachable from the network only if configured";
        /// Allow plain text beyond loopback: this endpoint does not support TLS and requires a TLS proxy.
        plaintext_allowed: bool = plain(false),
            "a server without a proxy by mistake refuses to start";
        /// The time limit for one request.
        request_time_max: Duration = time(MINUTE, 100 * MILLISECOND..=HOUR),
            "covers upload, commit and receipt; a slower sender would hold memory";
        /// The number of concurrent connections.
        connections_max: usize = count("connections", 1_024, 1..=1_000_000),
            "each has its own buffers: see docs/memory.md";
        /// The size of a request's line and headers.
        header_bytes_max: usize = bytes(64 * KIB, 8 * KIB..=256 * KIB),
            "fits a token of the default size four times";
        /// Whether `GET /` shows the names and descriptions of all tables with a policy, without a token.
        home_tables: bool = plain(false),
            "names of tables can reveal customers; `glasshouse demo` sets it";
    }
}

section! {
    /// Graceful shutdown.
    ShutdownConfig {
        /// The time limit from the stop signal until the process exits. Running requests have three fifths of it to finish,
        /// then their connections are closed; the rest is reserved for committing admitted events, regardless of clients.
        time_max: Duration = time(25 * SECOND, SECOND..=HOUR),
            "below the usual 30 seconds after which an orchestrator kills the process";
    }
}

section! {
    /// The server's log.
    LogConfig {
        /// `text` for people or `json` for machines.
        format: LogFormat = plain(LogFormat::Text),
            "readable on a terminal; set `json` for a log collector";
        /// Filter directives, such as `info,glasshouse=debug`.
        level: String = plain("info"),
            "logs starts, stops, refusals and errors; nothing per event";
    }
}
