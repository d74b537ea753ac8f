//! All metrics of the process.
//!
//! Other modules record metrics with methods such as [`Metrics::events`], which are cheap enough for every batch, query
//! and request. [`Metrics::render`] returns all metrics as OpenMetrics text.

use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::label_value::{Label, LabelNames, Labels};
use super::maintenance::MaintenanceMetrics;
use super::metrics_registry::{MetricsRegistry, durations, row_counts};
use super::query::{QueryMeter, QueryMetrics};
use super::source::SourceMetrics;
use super::transform::TransformMetrics;
use crate::error::{Error, Kind};

/// The maximum number of tenants that have their own label value. All other tenants share `other`. Each additional
/// value adds three time series per table.
const TENANT_LABELS_MAX: usize = 1_000;

type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Histograms<const N: usize> = Family<Labels<N>, Histogram>;

/// The outcome of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOutcome {
    /// The event was stored.
    Accepted,
    /// The event repeats a stored event, and was not stored again.
    Duplicate,
    /// The event was rejected and stored in the quarantine.
    Rejected,
}

/// All metrics of the process. Labels contain no tenant data except the names of tenants.
///
/// The caller of a method must pass the name of an existing table as `table`, never an arbitrary string from a client.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    tenants: LabelNames,
    events: Counters<3>,
    repeats: Counters<3>,
    quarantine_closed: Counters<2>,
    events_lost: Counters<1>,
    commit_duration: Histograms<1>,
    commit_rows: Histograms<1>,
    commit_failures: Counters<1>,
    queue_bytes: Gauge,
    limited: Counters<1>,
    queries: QueryMetrics,
    auth_refused: Counters<1>,
    revocations: Gauge,
    revocations_file_invalid: Gauge,
    http_requests: Counters<2>,
    http_duration: Histograms<1>,
    flight_calls: Counters<2>,
    lake_version: Gauges<1>,
    lake_checkpoints: Counters<1>,
    task_panics: Counters<1>,
    task_restarts: Counters<1>,
    /// The metrics of sources.
    pub sources: SourceMetrics,
    /// The metrics of transforms.
    pub transforms: TransformMetrics,
    /// The metrics of lake maintenance.
    pub maintenance: MaintenanceMetrics,
}

impl EventOutcome {
    /// Returns the outcome as a label value for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Rejected => "rejected",
        }
    }
}

impl Default for Metrics {
    /// Creates all metrics with the value 0, and registers them with their help texts.
    fn default() -> Self {
        let rows = || Unit::Other("rows".to_owned());
        let seconds = || Family::new_with_constructor(durations as fn() -> Histogram);
        let counts = Family::new_with_constructor(row_counts as fn() -> Histogram);
        let mut registry = MetricsRegistry::new();
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.add_info("build", "The version of this program", build);
        Self {
            tenants: LabelNames::new(TENANT_LABELS_MAX),
            events: registry.add("events", "Events received, by outcome", Family::default()),
            repeats: registry.add(
                "repeats",
                "Events received again, by tenant and by whether their content was the same",
                Family::default(),
            ),
            quarantine_closed: registry.add(
                "quarantine_closed",
                "Quarantine entries that were replayed or dropped",
                Family::default(),
            ),
            events_lost: registry.add(
                "events_lost",
                "Events acknowledged on receipt that could not be stored before the server stopped",
                Family::default(),
            ),
            commit_duration: registry.add_in(
                Unit::Seconds,
                "commit_duration",
                "Time to write and commit one batch",
                seconds(),
            ),
            commit_rows: registry.add_in(rows(), "commit", "Rows per committed batch", counts),
            commit_failures: registry.add(
                "commit_failures",
                "Failed attempts to write or commit a batch",
                Family::default(),
            ),
            queue_bytes: registry.add_in(
                Unit::Bytes,
                "ingest_queue",
                "Size of events waiting for a commit",
                Gauge::default(),
            ),
            limited: registry.add("limited", "Requests refused by a limit, by the limit's name", Family::default()),
            queries: QueryMetrics::new(&mut registry),
            auth_refused: registry.add("auth_refused", "Callers refused, by reason", Family::default()),
            revocations: registry.add("revocations", "Active revocations of tokens", Gauge::default()),
            revocations_file_invalid: registry.add(
                "revocations_file_invalid",
                "1 if the file with the revocations is missing, unreadable or invalid, and the previous ones stay active",
                Gauge::default(),
            ),
            http_requests: registry.add("http_requests", "HTTP requests, by route and status", Family::default()),
            http_duration: registry.add_in(Unit::Seconds, "http_duration", "Time to answer an HTTP request", seconds()),
            flight_calls: registry.add("flight_calls", "Flight calls, by method and gRPC code", Family::default()),
            lake_version: registry.add("lake_version", "The newest known Delta version of a table", Family::default()),
            lake_checkpoints: registry.add("lake_checkpoints", "Checkpoints written", Family::default()),
            task_panics: registry.add("task_panics", "Panics in background tasks, by task", Family::default()),
            task_restarts: registry.add("task_restarts", "Background tasks restarted after a panic", Family::default()),
            sources: SourceMetrics::new(&mut registry),
            transforms: TransformMetrics::new(&mut registry),
            maintenance: MaintenanceMetrics::new(&mut registry),
            registry: registry.finish(),
        }
    }
}

impl Metrics {
    /// Counts `count` events of `tenant`.
    pub fn events(&self, table: &str, tenant: &str, outcome: EventOutcome, count: u64) {
        let tenant = self.tenants.label(tenant);
        let labels = [("table", Label::owned(table)), ("tenant", tenant), ("outcome", outcome.word().into())];
        self.events.get_or_create(&labels).inc_by(count);
    }

    /// Counts repeated events of `tenant`. `other` counts those whose content is known to differ from the stored event,
    /// and `same` counts the rest.
    pub fn repeats(&self, table: &str, tenant: &str, same: u64, other: u64) {
        for (content, count) in [("same", same), ("other", other)].into_iter().filter(|(_, count)| *count > 0) {
            let tenant = self.tenants.label(tenant);
            let labels = [("table", Label::owned(table)), ("tenant", tenant), ("content", content.into())];
            self.repeats.get_or_create(&labels).inc_by(count);
        }
    }

    /// Counts events of `table` that were acknowledged on receipt but could not be stored.
    pub fn events_lost(&self, table: &str, count: u64) {
        self.events_lost.get_or_create(&[("table", Label::owned(table))]).inc_by(count);
    }

    /// Counts entries of `table`'s quarantine that were closed. `resolution` is `replayed` or `dropped`.
    pub fn quarantine_closed(&self, table: &str, resolution: &'static str, count: u64) {
        self.quarantine_closed
            .get_or_create(&[("table", Label::owned(table)), ("resolution", resolution.into())])
            .inc_by(count);
    }

    /// Records that a batch of `rows` rows was written and committed, and how long the write and the commit took.
    pub fn committed(&self, table: &str, rows: usize, took: Duration) {
        let labels = [("table", Label::owned(table))];
        self.commit_duration.get_or_create(&labels).observe(took.as_secs_f64());
        self.commit_rows.get_or_create(&labels).observe(rows as f64);
    }

    /// Counts a failed attempt to write or commit a batch.
    pub fn commit_failed(&self, table: &str) {
        self.commit_failures.get_or_create(&[("table", Label::owned(table))]).inc();
    }

    /// Sets the total size in bytes of the events that wait for a commit.
    pub fn queue_bytes(&self, bytes: usize) {
        self.queue_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts a request that was refused because of a limit. `limit` is the configuration key, such as
    /// `ingest.queue_bytes_max`.
    pub fn limited(&self, limit: &'static str) {
        self.limited.get_or_create(&[("limit", limit.into())]).inc();
    }

    /// Returns a meter for a query. The query counts as running until the meter is dropped.
    pub fn query(&self) -> QueryMeter {
        self.queries.start()
    }

    /// Counts a request that was refused because its token is missing or invalid, or because its valid token does not
    /// grant the required access. Server errors, such as a failure to fetch an issuer's keys, are not counted.
    pub fn auth_refused(&self, error: &Error) {
        let reason = match error.kind() {
            Kind::Unauthenticated => "token",
            Kind::Forbidden => "claims",
            _ => return,
        };
        self.auth_refused.get_or_create(&[("reason", reason.into())]).inc();
    }

    /// Sets the number of active revocations, and whether the file with the revocations can be used.
    pub fn revocations(&self, active: usize, is_file_valid: bool) {
        self.revocations.set(i64::try_from(active).unwrap_or(i64::MAX));
        self.revocations_file_invalid.set(i64::from(!is_file_valid));
    }

    /// Records an HTTP request and its response. `route` is the pattern, such as `/v1/tables/{table}/events`, never the
    /// requested path.
    pub fn http_request(&self, route: &str, status: u16, took: Duration) {
        let route = Label::owned(route);
        let labels = [("route", route.clone()), ("status", Label::owned(status.to_string()))];
        self.http_requests.get_or_create(&labels).inc();
        self.http_duration.get_or_create(&[("route", route)]).observe(took.as_secs_f64());
    }

    /// Counts a finished Flight call by its method, such as `DoGet`, and its gRPC code, such as `RESOURCE_EXHAUSTED`.
    pub fn flight_call(&self, method: &'static str, code: &'static str) {
        self.flight_calls.get_or_create(&[("method", method.into()), ("code", code.into())]).inc();
    }

    /// Sets the newest known version of `table`.
    pub fn lake_version(&self, table: &str, version: u64) {
        let version = i64::try_from(version).unwrap_or(i64::MAX);
        self.lake_version.get_or_create(&[("table", Label::owned(table))]).set(version);
    }

    /// Counts a checkpoint that was written for `table`.
    pub fn lake_checkpoint(&self, table: &str) {
        self.lake_checkpoints.get_or_create(&[("table", Label::owned(table))]).inc();
    }

    /// Counts a panic of a background task. `task` is the kind of task, such as `committer`.
    pub fn task_panicked(&self, task: &'static str) {
        self.task_panics.get_or_create(&[("task", task.into())]).inc();
    }

    /// Counts a restart of a background task after a panic. `task` is the kind of task, such as `committer`.
    pub fn task_restarted(&self, task: &'static str) {
        self.task_restarts.get_or_create(&[("task", task.into())]).inc();
    }

    /// Renders all metrics in the OpenMetrics text format (media type [`Metrics::CONTENT_TYPE`]).
    pub fn render(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("writing to a string cannot fail");
        page
    }

    /// The media type of [`Metrics::render`].
    pub const CONTENT_TYPE: &'static str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

#[cfg(test)]
mod tests {
    use super::super::query::QueryOutcome;
    use super::super::source::PartitionLabel;
    use super::*;

    #[track_caller]
    fn check(metrics: &Metrics, lines: &[&str]) {
        let page = metrics.render();
        for line in lines {
            assert!(page.lines().any(|given| given == *line), "{line} is missing in:\n{page}");
        }
    }

    #[test]
    fn every_recorded_value_is_rendered() {
        let metrics = Metrics::default();
        metrics.events("calls", "acme", EventOutcome::Accepted, 7);
        metrics.events("calls", "acme", EventOutcome::Accepted, 1);
        metrics.committed("calls", 8, Duration::from_millis(3));
        metrics.commit_failed("calls");
        metrics.queue_bytes(512);
        metrics.limited("ingest.queue_bytes_max");
        metrics.auth_refused(&Error::unauthenticated("expired"));
        metrics.auth_refused(&Error::forbidden("the token has no tenant"));
        metrics.auth_refused(&Error::unavailable("the keys cannot be fetched"));
        metrics.http_request("/v1/tables/{table}/events", 429, Duration::from_millis(3));
        metrics.flight_call("DoGet", "OK");
        metrics.lake_version("calls", 41);
        metrics.lake_checkpoint("calls");
        metrics.task_panicked("committer");
        metrics.task_restarted("committer");
        let partition = PartitionLabel { source: "voice", topic: "calls.v1", partition: 3 };
        metrics.sources.committed(partition, 9, Duration::from_millis(3));
        metrics.sources.assigned(partition);
        metrics.sources.stopped(partition);
        metrics.sources.lag(partition, 11);
        metrics.sources.skipped(partition, 2);
        let stopped = PartitionLabel { partition: 4, ..partition };
        metrics.sources.lag(stopped, 5);
        metrics.sources.stopped(stopped);
        assert!(!metrics.render().contains("partition=\"4\"} 5"), "the lag of a stopped partition is unknown");
        metrics.sources.released(stopped);
        metrics.sources.overtaken("voice");
        metrics.transforms.lookup_loaded("restaurants", 12);
        metrics.transforms.lookup_failed("restaurants");
        check(
            &metrics,
            &[
                "glasshouse_events_total{table=\"calls\",tenant=\"acme\",outcome=\"accepted\"} 8",
                "glasshouse_commit_duration_seconds_count{table=\"calls\"} 1",
                "glasshouse_commit_rows_sum{table=\"calls\"} 8.0",
                "glasshouse_commit_failures_total{table=\"calls\"} 1",
                "glasshouse_ingest_queue_bytes 512",
                "glasshouse_limited_total{limit=\"ingest.queue_bytes_max\"} 1",
                "glasshouse_auth_refused_total{reason=\"token\"} 1",
                "glasshouse_auth_refused_total{reason=\"claims\"} 1",
                "glasshouse_http_requests_total{route=\"/v1/tables/{table}/events\",status=\"429\"} 1",
                "glasshouse_flight_calls_total{method=\"DoGet\",code=\"OK\"} 1",
                "glasshouse_lake_version{table=\"calls\"} 41",
                "glasshouse_lake_checkpoints_total{table=\"calls\"} 1",
                "glasshouse_task_panics_total{task=\"committer\"} 1",
                "glasshouse_task_restarts_total{task=\"committer\"} 1",
                "glasshouse_source_messages_total{source=\"voice\",topic=\"calls.v1\",partition=\"3\"} 9",
                "glasshouse_source_lag_messages{source=\"voice\",topic=\"calls.v1\",partition=\"3\"} 11",
                "glasshouse_source_skipped_messages_total{source=\"voice\",topic=\"calls.v1\",partition=\"3\"} 2",
                "glasshouse_source_stopped{source=\"voice\",topic=\"calls.v1\",partition=\"3\"} 1",
                "glasshouse_source_overtaken_total{source=\"voice\"} 1",
                "glasshouse_lookup_rows{lookup=\"restaurants\"} 12",
                "glasshouse_lookup_loads_total{lookup=\"restaurants\",outcome=\"loaded\"} 1",
                "glasshouse_lookup_loads_total{lookup=\"restaurants\",outcome=\"failed\"} 1",
                "# EOF",
            ],
        );
        metrics.sources.released(partition);
        assert!(
            !metrics.render().contains("source_lag_messages{"),
            "the server that reads the partition now reports its lag"
        );
    }

    #[test]
    fn queries_are_counted_by_outcome() {
        let metrics = Metrics::default();
        let mut ended = metrics.query();
        ended.rows(5);
        let (limited, dropped) = (metrics.query(), metrics.query());
        check(&metrics, &["glasshouse_queries_running 3"]);
        ended.end(QueryOutcome::Ok);
        limited.end(QueryOutcome::from(&Error::limited("the result is too large")));
        drop(dropped);
        check(
            &metrics,
            &[
                "glasshouse_queries_running 0",
                "glasshouse_queries_total{outcome=\"ok\"} 1",
                "glasshouse_queries_total{outcome=\"limited\"} 1",
                "glasshouse_queries_total{outcome=\"cancelled\"} 1",
                "glasshouse_query_duration_seconds_count 3",
                "glasshouse_query_returned_rows_total 5",
            ],
        );
    }

    #[test]
    fn tenants_beyond_the_limit_share_a_label_value() {
        let metrics = Metrics::default();
        for number in 0..TENANT_LABELS_MAX + 20 {
            metrics.events("calls", &format!("t{number}"), EventOutcome::Accepted, 1);
        }
        metrics.events("calls", "t0", EventOutcome::Accepted, 1);
        check(
            &metrics,
            &[
                "glasshouse_events_total{table=\"calls\",tenant=\"t0\",outcome=\"accepted\"} 2",
                "glasshouse_events_total{table=\"calls\",tenant=\"other\",outcome=\"accepted\"} 20",
            ],
        );
    }

    #[test]
    fn a_tenants_name_cannot_forge_labels() {
        let metrics = Metrics::default();
        metrics.events("calls", "a\"} 9\n\\b", EventOutcome::Rejected, 1);
        check(&metrics, &[r#"glasshouse_events_total{table="calls",tenant="a\"} 9\n\\b",outcome="rejected"} 1"#]);
    }
}
