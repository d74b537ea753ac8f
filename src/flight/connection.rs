//! Accepts connections to the Flight endpoint up to a limit, and refuses further connections with an HTTP/2 GOAWAY
//! frame.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::net::TcpListener;

use super::graceful_close::GracefulClose;
use crate::config::FlightConfig;
use crate::listener::{ConnectionLimit, Listener};
use crate::telemetry::Metrics;

/// An empty SETTINGS frame, which a server must send first (RFC 9113, section 6.5).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// A GOAWAY frame (section 6.8), but without the first field, which is the length. The frame contains the id of the
/// last stream that the server processed, or 0 if there was none. With the error code ENHANCE_YOUR_CALM, gRPC clients
/// retry or report `RESOURCE_EXHAUSTED`.
const GOAWAY: [u8; 14] = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb];
/// The length of the payload of a GOAWAY frame, without its debug data.
const GOAWAY_BYTES: usize = 8;

/// Returns an endless stream of accepted connections.
pub(super) fn connections(
    socket: TcpListener,
    config: &FlightConfig,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = io::Result<GracefulClose>> + use<> {
    let connections_max = config.connections_max;
    // With TLS, there is no refusal message. The client could read it only after a handshake, which a server at its
    // limit does not perform.
    let refusal = if config.tls_cert.is_some() { Bytes::new() } else { refusal(connections_max) };
    let limit = ConnectionLimit { key: "flight.connections_max", connections_max, refusal };
    let listener = Listener::new(socket, limit, metrics);
    stream::unfold(listener, |mut listener| async {
        let (stream, slot) = listener.accept().await;
        Some((Ok(GracefulClose::new(stream, slot)), listener))
    })
}

/// Returns the bytes that the server sends before it closes a connection because of the limit.
fn refusal(connections_max: usize) -> Bytes {
    let text = format!("the server has {connections_max} connections (limit flight.connections_max): retry later");
    let length = u32::try_from(GOAWAY_BYTES + text.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&SETTINGS, &length[1..], &GOAWAY[..], text.as_bytes()].concat().into()
}
