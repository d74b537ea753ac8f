//! The memory that the endpoints may use: every part of the sum in `docs/memory.md`.
//!
//! In: a checked configuration. Out: bytes per part, and the flow-control windows that enforce one of the parts.
//! Refuses more connections than the smallest windows in `flight.window_bytes_max` allow.
//!
//! **Invariant:** all memory that an endpoint holds for its clients is limited by one of these parts. The memory of running
//! queries, of decoding and of commits is not part of the sum: it has its own limits.

use super::error::ConfigErrors;
use super::{Config, FlightConfig, HttpConfig};

/// The smallest window of a connection: HTTP/2 starts every connection with 65,535 bytes and has no way to take them back.
const WINDOW_BYTES_MIN: usize = 64 << 10;
/// The largest window of a connection: enough for 1 Gbit/s over 100 ms.
const WINDOW_BYTES_MAX: usize = 16 << 20;
/// The largest window of one call, so that one upload does not hold up the other calls of its connection.
const STREAM_WINDOW_BYTES_MAX: usize = 4 << 20;
/// How much more the HTTP libraries read of a request's headers than the limit allows: headers within it are refused by us,
/// with a message, and only larger ones by the library.
const HEADER_HEADROOM: usize = 4;
/// The frames of one connection that are being read and written, and the tables of its header compression.
const FRAME_BYTES: usize = 64 << 10;
/// Bytes that HTTP/1.1 reads ahead of a handler, at least.
const READ_AHEAD_BYTES_MIN: usize = 256 << 10;

/// Bytes of the endpoints' memory, at most, by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointMemory {
    /// Events from their arrival to their commit, of both endpoints.
    pub ingest_queue: usize,
    /// Bytes that Flight clients have sent and the server has not read.
    pub flight_windows: usize,
    /// Buffers of Flight connections.
    pub flight_connections: usize,
    /// Requests and answers of Flight calls.
    pub flight_calls: usize,
    /// Buffers of HTTP connections.
    pub http_connections: usize,
}

impl EndpointMemory {
    /// All parts together.
    pub fn total(&self) -> usize {
        let parts = [self.flight_windows, self.flight_connections, self.flight_calls, self.http_connections];
        parts.into_iter().fold(self.ingest_queue, usize::saturating_add)
    }
}

impl Config {
    /// The memory that the endpoints may use.
    pub fn endpoint_memory(&self) -> EndpointMemory {
        let Self { ingest, flight, http, .. } = self;
        let (_, window) = flight.windows();
        EndpointMemory {
            ingest_queue: ingest.queue_bytes_max,
            flight_windows: flight.connections_max.saturating_mul(window),
            flight_connections: flight.connections_max.saturating_mul(flight.header_read_bytes_max() + FRAME_BYTES),
            flight_calls: flight
                .streams_max
                .saturating_mul(flight.message_bytes_max.max(FlightConfig::REQUEST_BYTES_MAX)),
            // Read ahead of the handler, and written ahead of the client.
            http_connections: http.connections_max.saturating_mul(2 * http.read_ahead_bytes_max()),
        }
    }
}

impl FlightConfig {
    /// The largest request of a call other than an upload: enough for a ticket or a prepared handle of the largest size, and its schema.
    pub const REQUEST_BYTES_MAX: usize = 2 << 20;

    /// The flow-control windows (of one call, of one connection) with which all connections together stay within
    /// `window_bytes_max`.
    pub fn windows(&self) -> (usize, usize) {
        let share = self.window_bytes_max / self.connections_max.max(1);
        let connection = share.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        (connection.min(STREAM_WINDOW_BYTES_MAX), connection)
    }

    /// The size of headers up to which the HTTP/2 library hands a request to us.
    pub fn header_read_bytes_max(&self) -> usize {
        HEADER_HEADROOM.saturating_mul(self.header_bytes_max as usize)
    }
}

impl HttpConfig {
    /// The size of a line and headers up to which the HTTP/1.1 library hands a request to us.
    pub fn header_read_bytes_max(&self) -> usize {
        HEADER_HEADROOM.saturating_mul(self.header_bytes_max)
    }

    /// Bytes that are read ahead of a handler, and written ahead of the client: headers have to fit.
    pub fn read_ahead_bytes_max(&self) -> usize {
        READ_AHEAD_BYTES_MIN.max(self.header_read_bytes_max())
    }
}

/// Checks that the windows of all connections fit.
pub(super) fn across(config: &Config, faults: &mut ConfigErrors) {
    let FlightConfig { connections_max, window_bytes_max, .. } = config.flight;
    let fitting = window_bytes_max / WINDOW_BYTES_MIN;
    if connections_max > fitting {
        let fault = format!(
            "{connections_max} connections need {} KiB each of flight.window_bytes_max, which is enough for {fitting}: \
             set flight.window_bytes_max to at least {} MiB",
            WINDOW_BYTES_MIN >> 10,
            connections_max.saturating_mul(WINDOW_BYTES_MIN).div_ceil(1 << 20)
        );
        faults.add("flight.connections_max", fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn windows_shrink_with_the_number_of_connections() {
        let cases = [
            // connections, bytes for all: window of a call and of a connection.
            (1, 256 * MIB, (4 * MIB, 16 * MIB)),
            (64, 256 * MIB, (4 * MIB, 4 * MIB)),
            (512, 256 * MIB, (MIB / 2, MIB / 2)),
            (1_000_000, 256 * MIB, (64 << 10, 64 << 10)),
        ];
        for (connections_max, window_bytes_max, windows) in cases {
            let config = FlightConfig { connections_max, window_bytes_max, ..FlightConfig::default() };
            assert_eq!(config.windows(), windows, "{connections_max}");
        }
    }

    #[test]
    fn connections_without_even_the_smallest_window_are_refused() {
        let check = |connections_max| {
            let mut faults = ConfigErrors::new("test");
            let flight = FlightConfig { connections_max, ..FlightConfig::default() };
            across(&Config { flight, ..Config::default() }, &mut faults);
            faults.to_string()
        };
        assert_eq!(check(4_096), "");
        let refused = check(5_000);
        assert!(refused.contains("flight.connections_max") && refused.contains("at least 313 MiB"), "{refused}");
    }

    /// The page documents the sum for the defaults: each part in its table, in MiB.
    #[test]
    fn the_page_about_memory_states_the_sum_of_the_defaults() {
        let page = include_str!("../../docs/memory.md");
        let memory = Config::default().endpoint_memory();
        let parts = [
            ("events", memory.ingest_queue),
            ("windows", memory.flight_windows),
            ("Flight connections", memory.flight_connections),
            ("Flight calls", memory.flight_calls),
            ("HTTP connections", memory.http_connections),
            ("**sum**", memory.total()),
        ];
        for (part, bytes) in parts {
            let row = page.lines().find(|line| line.starts_with(&format!("| {part} |")));
            let row = row.unwrap_or_else(|| panic!("no row of {part}"));
            let stated = row.trim_end_matches(['|', ' ', '*']).rsplit(['|', '*']).next().unwrap_or_default();
            assert_eq!(stated.trim().replace(',', ""), (bytes / MIB).to_string(), "{row}");
        }
    }
}
