//! Computes the maximum memory that the endpoints use, and the sizes of the HTTP/2 flow-control windows.
//!
//! `docs/memory.md` lists the default value of each field of [`EndpointMemory`], and their sum.
//!
//! **Invariant:** each byte that an endpoint holds for a client is counted in exactly one field of [`EndpointMemory`].
//! Running queries, decoding and commits have their own limits and are not included.

use super::error::ConfigErrors;
use super::{Config, FlightConfig, HttpConfig};

/// The smallest window of a connection, in bytes. Every HTTP/2 connection starts with a window of 65,535 bytes, and the
/// server cannot reduce it.
const WINDOW_BYTES_MIN: usize = 64 << 10;
/// The largest window of a connection, in bytes. This size allows 1 Gbit/s at a round-trip time of 100 ms.
const WINDOW_BYTES_MAX: usize = 16 << 20;
/// The largest window of one call, in bytes. This window is smaller than a connection's largest window, so one upload
/// cannot block the other calls on its connection.
const STREAM_WINDOW_BYTES_MAX: usize = 4 << 20;
/// The HTTP libraries accept headers of up to this multiple of the configured limit. If the size of the headers is
/// between the two limits, our code refuses them with a clear message. The library refuses larger headers without an
/// error message.
const HEADER_HEADROOM: usize = 4;
/// The memory of one connection for frames that are being read or written and for header compression, in bytes.
const FRAME_BYTES: usize = 64 << 10;
/// The minimum number of bytes that an HTTP/1.1 connection reads ahead of its handler.
const READ_AHEAD_BYTES_MIN: usize = 256 << 10;

/// The maximum memory of the endpoints by purpose, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointMemory {
    /// Events that arrived at either endpoint and are not committed yet.
    pub ingest_queue: usize,
    /// Data that Flight clients may have sent but the server has not yet read.
    pub flight_windows: usize,
    /// Buffers of Flight connections.
    pub flight_connections: usize,
    /// Requests and responses of Flight calls.
    pub flight_calls: usize,
    /// Buffers of HTTP connections.
    pub http_connections: usize,
}

impl EndpointMemory {
    /// Returns the sum of all fields.
    pub fn total(&self) -> usize {
        let parts = [self.flight_windows, self.flight_connections, self.flight_calls, self.http_connections];
        parts.into_iter().fold(self.ingest_queue, usize::saturating_add)
    }
}

impl Config {
    /// Returns the maximum memory of the endpoints.
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
            // One buffer holds data that the handler has not yet read, and the other buffer holds data that the client
            // has not yet read.
            http_connections: http.connections_max.saturating_mul(2 * http.read_ahead_bytes_max()),
        }
    }
}

impl FlightConfig {
    /// The maximum size of a call's request, except for uploads, in bytes. The limit is large enough for the largest
    /// ticket, and for the largest prepared-statement handle with its schema.
    pub const REQUEST_BYTES_MAX: usize = 2 << 20;

    /// Returns the flow-control windows of a call and of a connection, in bytes. The windows of all connections
    /// together stay within `window_bytes_max`.
    pub fn windows(&self) -> (usize, usize) {
        let share = self.window_bytes_max / self.connections_max.max(1);
        let connection = share.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        (connection.min(STREAM_WINDOW_BYTES_MAX), connection)
    }

    /// Returns the maximum size of the headers that the HTTP/2 library accepts, in bytes.
    pub fn header_read_bytes_max(&self) -> usize {
        HEADER_HEADROOM.saturating_mul(self.header_bytes_max as usize)
    }
}

impl HttpConfig {
    /// Returns the maximum size of a request line and headers that the HTTP/1.1 library accepts, in bytes.
    pub fn header_read_bytes_max(&self) -> usize {
        HEADER_HEADROOM.saturating_mul(self.header_bytes_max)
    }

    /// Returns the size of a connection's read buffer in bytes. The write buffer has the same size. A request's headers
    /// must fit into the read buffer.
    pub fn read_ahead_bytes_max(&self) -> usize {
        READ_AHEAD_BYTES_MIN.max(self.header_read_bytes_max())
    }
}

/// Checks that the window of every connection is at least [`WINDOW_BYTES_MIN`].
pub(super) fn across(config: &Config, errors: &mut ConfigErrors) {
    let FlightConfig { connections_max, window_bytes_max, .. } = config.flight;
    let possible = window_bytes_max / WINDOW_BYTES_MIN;
    if connections_max > possible {
        let message = format!(
            "{connections_max} connections need {} KiB each of flight.window_bytes_max, which is enough for {possible} \
             connections: set flight.window_bytes_max to at least {} MiB",
            WINDOW_BYTES_MIN >> 10,
            connections_max.saturating_mul(WINDOW_BYTES_MIN).div_ceil(1 << 20)
        );
        errors.add("flight.connections_max", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn windows_shrink_with_the_number_of_connections() {
        let cases = [
            // The number of connections, the bytes for all of them, and the windows of a call and of a connection.
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
    fn more_connections_than_smallest_windows_are_refused() {
        let check = |connections_max| {
            let mut errors = ConfigErrors::new("test");
            let flight = FlightConfig { connections_max, ..FlightConfig::default() };
            across(&Config { flight, ..Config::default() }, &mut errors);
            errors.to_string()
        };
        assert_eq!(check(4_096), "");
        let refused = check(5_000);
        assert!(refused.contains("flight.connections_max") && refused.contains("at least 313 MiB"), "{refused}");
    }

    /// `docs/memory.md` states each field and the sum for the default configuration, in MiB.
    #[test]
    fn the_memory_page_states_the_parts_and_the_sum_of_the_defaults() {
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
            let row = row.unwrap_or_else(|| panic!("docs/memory.md has no row for {part}"));
            let stated = row.trim_end_matches(['|', ' ', '*']).rsplit(['|', '*']).next().unwrap_or_default();
            assert_eq!(stated.trim().replace(',', ""), (bytes / MIB).to_string(), "{row}");
        }
    }
}
