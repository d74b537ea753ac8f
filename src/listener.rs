//! Listening sockets with a connection limit, used by both endpoints.
//!
//! In: a bound socket, and the endpoint's limit. Out: connections, each with a [`ConnectionSlot`] that it holds while it is open.
//! A connection beyond the limit is accepted too: it gets a refusal in the protocol of the endpoint and is closed gracefully,
//! so that its client can distinguish a full server from a dead one.
//!
//! **Invariant:** there are never more slots than `connections_max`, and never more than [`REFUSALS_MAX`] refusals in
//! progress, each of which ends within [`REFUSAL_TIME_MAX`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::telemetry::Metrics;

/// The pause after a failed accept: the process is out of file descriptors, and other connections need time to close theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The maximum number of concurrent refusals; further connections are closed without one.
const REFUSALS_MAX: usize = 64;
/// The time a refused client has to read its refusal and close its side.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(3);
/// The size of the buffer into which a refused client's request is read and discarded.
const DISCARD_BYTES: usize = 4 * 1024;

/// An endpoint's connection limit.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimit {
    /// The configuration key, for the log and the metrics.
    pub(crate) key: &'static str,
    /// The maximum number of concurrent connections.
    pub(crate) connections_max: usize,
    /// The bytes sent to a connection beyond the limit before it is closed. Empty if the protocol has no such message.
    pub(crate) refusal: Bytes,
}

/// A connection's share of the limit; dropping it frees the slot.
#[derive(Debug)]
#[must_use = "dropping the slot frees it immediately"]
pub(crate) struct ConnectionSlot {
    _permit: OwnedSemaphorePermit,
}

/// A listening socket with its limit.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    slots: Arc<Semaphore>,
    limit: ConnectionLimit,
    /// Whether the last connection was refused: only the first of consecutive refusals is logged.
    is_full: bool,
    refusals: JoinSet<()>,
    metrics: Arc<Metrics>,
}

impl Listener {
    /// Accepts from `socket` within `limit`.
    pub(crate) fn new(socket: TcpListener, limit: ConnectionLimit, metrics: Arc<Metrics>) -> Self {
        let slots = Arc::new(Semaphore::new(limit.connections_max.min(Semaphore::MAX_PERMITS)));
        Self { socket, slots, limit, is_full: false, refusals: JoinSet::new(), metrics }
    }

    /// Returns the next connection that gets a slot. Refuses connections that arrive while no slot is free.
    pub(crate) async fn accept(&mut self) -> (TcpStream, ConnectionSlot) {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    // Responses are small and written in one call: Nagle's algorithm would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "could not set TCP_NODELAY");
                    }
                    if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
                        self.is_full = false;
                        return (stream, ConnectionSlot { _permit: permit });
                    }
                    self.refuse(stream);
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn refuse(&mut self, stream: TcpStream) {
        let ConnectionLimit { key, connections_max, refusal } = &self.limit;
        self.metrics.limited(key);
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(limit = key, connections_max, "refusing connections: the connection limit is reached");
        }
        while self.refusals.try_join_next().is_some() {}
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.spawn(say_and_close(stream, refusal.clone()));
        }
    }
}

/// Sends `refusal` once the client has begun to send: clients treat a response before their request as an error.
/// Then reads until the client closes its side: closing a socket with unread bytes resets the connection, and a reset makes
/// the client discard the refusal.
async fn say_and_close(mut stream: TcpStream, refusal: Bytes) {
    let closing = async {
        let mut scratch = [0; DISCARD_BYTES];
        if stream.read(&mut scratch).await? == 0 {
            return Ok(());
        }
        stream.write_all(&refusal).await?;
        stream.shutdown().await?;
        while stream.read(&mut scratch).await? > 0 {}
        std::io::Result::Ok(())
    };
    // A client that has disconnected, or is too slow, needs no refusal.
    let _ = tokio::time::timeout(REFUSAL_TIME_MAX, closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(client: &mut TcpStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_are_refused_until_a_slot_is_free() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let limit = ConnectionLimit { key: "test.connections_max", connections_max: 1, refusal: "full".into() };
        let mut listener = Listener::new(socket, limit, Arc::default());
        let mut accepted = JoinSet::new();
        let (slots, mut held) = tokio::sync::mpsc::channel(1);
        accepted.spawn(async move {
            loop {
                slots.send(listener.accept().await).await.unwrap();
            }
        });

        let _first = TcpStream::connect(address).await.unwrap();
        let slot = held.recv().await.unwrap();
        for _ in 0..3 {
            let mut refused = TcpStream::connect(address).await.unwrap();
            refused.write_all(&[b' '; 100_000]).await.unwrap();
            assert_eq!(answer(&mut refused).await, "full", "a reset does not discard the refusal");
        }
        drop(slot);
        let _next = TcpStream::connect(address).await.unwrap();
        drop(held.recv().await.unwrap());
    }
}
