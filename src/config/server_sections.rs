//! The sections of the server's own knobs, in the order in which data flows: ingest, lake, query, flight, http, log.
//!
//! Each knob says its unit, default, bounds and reason once; the rest follows from it (see `spec.rs`).

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

/// An address that only this machine reaches.
fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

section! {
    /// How events come in.
    IngestConfig {
        /// A batch closes at this many rows.
        batch_rows_max: usize = count("rows", 100_000, 1..=5_000_000),
            "one batch is one file: larger ones scan and compress better, smaller ones need less memory";
        /// Or at this many bytes in memory.
        batch_bytes_max: usize = bytes(64 * MIB, 4 * KIB..=4 * GIB),
            "bounds the memory of a table whose rows are wide";
        /// Or at this age of its first row.
        batch_age_max: Duration = time(SECOND, 5 * MILLISECOND..=5 * MINUTE),
            "an answer shows events of less than two seconds ago, and a commit takes its part of that";
        /// Bytes waiting for a commit, all tables together; past it a request is refused with a retry time.
        queue_bytes_max: usize = bytes(256 * MIB, 64 * KIB..=64 * GIB),
            "some seconds of a slow store at full rate; senders that retry lose nothing";
        /// How long a request may wait for room in the queue.
        queue_wait_max: Duration = time(SECOND, Duration::ZERO..=MINUTE),
            "one batch's age: a shorter burst passes, a longer one is told to come back";
        /// The size of one request's body, compressed and not.
        body_bytes_max: usize = bytes(32 * MIB, KIB..=GIB),
            "a body is held in memory as a whole, and many come at once";
        /// How many times larger a body may become by decompression.
        body_expansion_max: usize = count("times", 100, 1..=10_000),
            "events compress 10 to 30 times; a bomb a thousand times";
        /// The size of one event.
        event_bytes_max: usize = bytes(256 * KIB, 64..=16 * MIB),
            "an event is a fact, not a document; larger ones go to quarantine";
        /// Entries in one event's dimensions map.
        dimensions_max: usize = count("entries", 64, 0..=10_000),
            "unknown fields are kept, but one sender's mistake must not fill the table";
        /// Newest event ids of one table that are kept in memory to drop duplicates.
        dedupe_ids_max: usize = count("ids", 5_000_000, 1..=1_000_000_000),
            "about 26 bytes of memory each; for an older event of the same time, files are looked into";
        /// How far ahead of the server's clock an event's time may be.
        future_max: Duration = time(15 * MINUTE, Duration::ZERO..=366 * DAY),
            "clocks drift by seconds; a time far ahead is a wrong unit or zone and would stay the newest for ever";
        /// Reasons told in one receipt; the rest is counted only.
        receipt_rejects_max: usize = count("reasons", 100, 0..=100_000),
            "enough to find the fault; all of them are in the quarantine";
        /// Attempts to commit one batch.
        commit_attempts_max: u32 = count("attempts", 10, 1..=1_000),
            "each attempt loses to another writer's commit or a failing store; then the sender is told to retry";
        /// Time for the transform of one batch, finding its bad messages included.
        transform_time_max: Duration = time(30 * SECOND, 100 * MILLISECOND..=4 * MINUTE),
            "a batch that takes longer is read again in smaller ones; below the five minutes after which Kafka gives a \
             silent reader's partitions away";
        /// Memory for the transform of one batch: its joins, and its rows.
        transform_memory_bytes_max: usize = bytes(256 * MIB, MIB..=64 * GIB),
            "a join that multiplies its rows fails by itself, and not with the server";
        /// Rows that the transform of one batch may make.
        transform_rows_max: usize = count("rows", 1_000_000, 1..=1_048_576),
            "sixteen rows for each message of the largest batch; one message that makes more goes to quarantine";
        /// The size of one lookup table, as a file and in memory.
        lookup_bytes_max: usize = bytes(64 * MIB, KIB..=16 * GIB),
            "each is held in memory, and read again at each refresh";
        /// Rows of one lookup table.
        lookup_rows_max: usize = count("rows", 1_000_000, 1..=100_000_000),
            "each batch's join goes through all of them";
        /// Time to load one lookup table.
        lookup_time_max: Duration = time(30 * SECOND, 100 * MILLISECOND..=10 * MINUTE),
            "a service that hangs must not hold up the next try";
    }
}

section! {
    /// Where events rest.
    LakeConfig {
        /// `file:///path`, `s3://bucket/prefix`, `memory:///`, or a folder, from the folder of this file.
        url: String = required("memory:///"),
            "where the data is has to be said, not guessed";
        /// Options of the object store (`aws_endpoint`, `aws_region`, `aws_access_key_id` …); secrets are redacted.
        options: BTreeMap<String, String> = none(),
            "credentials come from the environment: `GLASSHOUSE__LAKE__OPTIONS__AWS_SECRET_ACCESS_KEY`";
        /// zstd level of Parquet files.
        compression_level: i32 = count("", 1, 1..=22),
            "higher levels gain a few per cent of size and cost several times the processor";
        /// Rows of a row group.
        row_group_rows_max: usize = count("rows", 131_072, 128..=16_777_216),
            "the unit of memory while writing and of skipping while reading";
        /// Commits between two checkpoints.
        checkpoint_interval: u64 = count("commits", 100, 1..=100_000),
            "a reader opens the last checkpoint and the commits after it";
        /// How long log entries older than a checkpoint are kept.
        log_retention: Duration = time(DAY, MINUTE..=3_650 * DAY),
            "readers that opened the table before go on for as long; each entry costs a listing";
        /// How often other writers' commits are looked for.
        refresh_interval: Duration = time(SECOND, 10 * MILLISECOND..=HOUR),
            "one listing of the log per table and interval buys a second of freshness";
        /// Time for one request to the store.
        request_time_max: Duration = time(30 * SECOND, 10 * MILLISECOND..=10 * MINUTE),
            "the largest file takes seconds; a store that hangs must not hold a batch for ever";
        /// Retries of one request to the store.
        request_retries_max: usize = count("retries", 5, 0..=100),
            "with growing pauses: some seconds of a busy store";
    }
}

section! {
    /// How events are asked.
    QueryConfig {
        /// Time for one query, planning and streaming.
        time_max: Duration = time(5 * MINUTE, MILLISECOND..=DAY),
            "a dashboard waits seconds, an extract into a BI tool minutes";
        /// Memory of one query.
        memory_bytes_max: usize = bytes(GIB, MIB..=1_024 * GIB),
            "a sort or a group-by beyond it fails by itself, and not with the server";
        /// Rows that one query may return.
        rows_max: usize = count("rows", 10_000_000, 1..=1_000_000_000_000),
            "an extract fits, a cross join by mistake does not";
        /// The size of a statement's text.
        sql_bytes_max: usize = bytes(256 * KIB, 64..=16 * MIB),
            "BI tools write long lists into a statement; parsing costs many times its size";
        /// Queries of one tenant at once.
        tenant_queries_max: usize = count("queries", 8, 1..=10_000),
            "one dashboard asks about eight at once; more of one tenant would be everyone else's wait";
        /// Queries of one tenant waiting for their turn.
        tenant_queue_max: usize = count("queries", 32, 0..=100_000),
            "the rest of a dashboard, and no more";
        /// How long one may wait.
        tenant_queue_wait_max: Duration = time(5 * SECOND, Duration::ZERO..=10 * MINUTE),
            "longer than that, a person reloads and asks again";
        /// Threads that plan and run queries, with a lower priority than all others; 0 for one per core.
        threads: usize = count("threads", 0, 0..=1_024),
            "queries may use the whole machine; ingest and endpoints still come first, on threads of their own";
        /// Partitions of a plan; 0 for one per core.
        partitions: usize = count("partitions", 0, 0..=1_024),
            "a query alone should use the whole machine";
        /// Rows of a record batch.
        batch_rows: usize = count("rows", 8_192, 1..=1_048_576),
            "fits the processor's caches, and large enough to hide the cost per batch";
        /// Memory for cached Parquet metadata.
        metadata_cache_bytes_max: usize = bytes(256 * MIB, 0..=64 * GIB),
            "some thousand files: a repeated question then reads only the data it needs";
    }
}

section! {
    /// The Arrow door.
    FlightConfig {
        /// Where to listen.
        listen: SocketAddr = plain(loopback(8_815)),
            "nothing is opened to the network unasked";
        /// The server's certificate chain (PEM); needs `tls_key`.
        tls_cert: Option<PathBuf> = none(),
            "a token on a plain wire is everybody's token";
        /// The server's private key (PEM).
        tls_key: Option<PathBuf> = none(),
            "goes with `tls_cert`";
        /// Certificates of accepted clients (PEM): mutual TLS.
        tls_client_ca: Option<PathBuf> = none(),
            "tokens are enough, unless the network asks for more";
        /// Plain text beyond loopback, for a server behind a TLS proxy.
        plaintext_allowed: bool = plain(false),
            "forgetting TLS should be noticed by the operator first";
        /// One message sent; clients with default limits read 4 MiB.
        message_bytes_max: usize = bytes(3 * MIB, 64 * KIB..=64 * MIB),
            "below the 4 MiB that gRPC clients accept, with room for what surrounds the data";
        /// One message received.
        message_in_bytes_max: usize = bytes(32 * MIB, 64 * KIB..=GIB),
            "ADBC sends a whole record batch as one message";
        /// Time for one message to arrive, from its first byte to its last, and for a call's request.
        message_in_time_max: Duration = time(MINUTE, 100 * MILLISECOND..=HOUR),
            "a message holds its share of `ingest.queue_bytes_max` while it arrives; a sender that is slower would hold it \
             against all others";
        /// A request's headers, each with 32 bytes on top of its name and value.
        header_bytes_max: u32 = bytes(32 * 1_024, 8 * 1_024..=256 * 1_024),
            "holds the longest token, Base64-coded once more by Basic";
        /// Connections at once.
        connections_max: usize = count("connections", 512, 1..=1_000_000),
            "each has buffers of its own: see docs/memory.md";
        /// Calls at once, of all connections. Health checks are not counted.
        streams_max: usize = count("calls", 512, 1..=1_000_000),
            "a client that does not read its answer holds one message of `message_bytes_max` in memory";
        /// Bytes that clients may have sent and the server has not read, of all connections together.
        window_bytes_max: usize = bytes(256 * MIB, 64 * KIB..=64 * GIB),
            "divided by `connections_max` it is each connection's flow-control window, of 64 KiB to 16 MiB: one window \
             per round trip is the most that a client can upload";
        /// How long a ticket or a prepared handle is valid.
        handle_age_max: Duration = time(HOUR, SECOND..=7 * DAY),
            "between planning and fetching lie seconds; a pooled statement is prepared again";
        /// The type profile of clients that ask for none.
        types: TypeProfile = plain(TypeProfile::Compat),
            "every known client reads it; `native` keeps views, dictionaries and unsigned numbers";
    }
}

section! {
    /// The web door.
    HttpConfig {
        /// Where to listen.
        listen: SocketAddr = plain(loopback(8_080)),
            "nothing is opened to the network unasked";
        /// Plain text beyond loopback: this door has no TLS of its own and belongs behind a proxy.
        plaintext_allowed: bool = plain(false),
            "forgetting the proxy should be noticed by the operator first";
        /// Time for one request.
        request_time_max: Duration = time(MINUTE, 100 * MILLISECOND..=HOUR),
            "upload, commit and receipt; a sender that is slower would hold memory";
        /// Connections at once.
        connections_max: usize = count("connections", 1_024, 1..=1_000_000),
            "each has buffers of its own: see docs/memory.md";
        /// A request's line and headers.
        header_bytes_max: usize = bytes(64 * KIB, 8 * KIB..=256 * KIB),
            "a token of the default size fits four times";
        /// Whether `GET /` shows the names and descriptions of all tables with a policy, without a token.
        home_tables: bool = plain(false),
            "a name can say who the customers are; `glasshouse demo` sets it";
    }
}

section! {
    /// How the server stops.
    ShutdownConfig {
        /// Time from the signal to stop until the process has ended. Running requests have three fifths of it to finish, then
        /// their connections are cut; the rest is for the commit of what was admitted, whatever clients do.
        time_max: Duration = time(25 * SECOND, SECOND..=HOUR),
            "ends before an orchestrator's usual 30 seconds do, after which it kills";
    }
}

section! {
    /// What the server says of itself.
    LogConfig {
        /// `text` for people or `json` for machines.
        format: LogFormat = plain(LogFormat::Text),
            "a terminal comes first; a log collector sets `json`";
        /// Filter directives, as in `info,glasshouse=debug`.
        level: String = plain("info"),
            "starts, stops, refusals and faults; nothing per event";
    }
}
