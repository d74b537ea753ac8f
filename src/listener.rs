//! Listening sockets with a connection limit, used by both endpoints.
//!
//! Each accepted connection occupies a [`ConnectionSlot`] until the connection is closed. If all slots are occupied,
//! the connection is still accepted, but only to send a refusal in the endpoint's protocol. The client can therefore
//! distinguish an overloaded server from a server that is down.
//!
//! **Invariant:** at most `connections_max` slots are in use. In addition, at most [`REFUSALS_MAX`] connections are
//! open to receive a refusal, each for at most [`REFUSAL_TIME_MAX`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::telemetry::Metrics;

/// The pause after a failed attempt to accept a connection. An attempt usually fails because the process has run out of
/// file descriptors. It can succeed after other connections have been closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The maximum number of connections that may be open to receive a refusal. The server closes any further connections
/// without sending a refusal.
const REFUSALS_MAX: usize = 64;
/// The maximum time for a refused client to read the refusal and close its side of the connection.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(3);
/// The size, in bytes, of the buffer into which a refused client's request is read. The request is then discarded.
const DISCARD_BYTES: usize = 4 * 1024;

/// An endpoint's connection limit.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimit {
    /// The configuration key of the limit. The log and the metrics contain this key.
    pub(crate) key: &'static str,
    /// The maximum number of concurrent connections.
    pub(crate) connections_max: usize,
    /// The bytes to send on a connection that is refused because all slots are occupied. Empty if the protocol has no
    /// suitable message.
    pub(crate) refusal: Bytes,
}

/// One slot of an endpoint's connection limit. When the slot is dropped, another connection can use it.
#[derive(Debug)]
#[must_use = "dropping the slot frees it immediately"]
pub(crate) struct ConnectionSlot {
    _permit: OwnedSemaphorePermit,
}

/// A listening socket with a connection limit.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    slots: Arc<Semaphore>,
    limit: ConnectionLimit,
    /// True if the last connection was refused. Only the first of several consecutive refusals is logged.
    is_full: bool,
    refusals: JoinSet<()>,
    metrics: Arc<Metrics>,
}

impl Listener {
    /// Creates a listener that accepts connections from `socket` within `limit`.
    pub(crate) fn new(socket: TcpListener, limit: ConnectionLimit, metrics: Arc<Metrics>) -> Self {
        let slots = Arc::new(Semaphore::new(limit.connections_max.min(Semaphore::MAX_PERMITS)));
        Self { socket, slots, limit, is_full: false, refusals: JoinSet::new(), metrics }
    }

    /// Waits for a connection that arrives while a slot is free, and returns the connection and the slot. While no slot
    /// is free, refuses each new connection.
    pub(crate) async fn accept(&mut self) -> (TcpStream, ConnectionSlot) {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    // Each response is sent with a single write, so Nagle's algorithm would only delay it.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "failed to set TCP_NODELAY");
                    }
                    if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
                        self.is_full = false;
                        return (stream, ConnectionSlot { _permit: permit });
                    }
                    self.refuse(stream);
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn refuse(&mut self, stream: TcpStream) {
        let ConnectionLimit { key, connections_max, refusal } = &self.limit;
        self.metrics.limited(key);
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(
                limit = key,
                connections_max,
                "refusing connections, because the connection limit has been reached"
            );
        }
        while self.refusals.try_join_next().is_some() {}
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.spawn(send_refusal(stream, refusal.clone()));
        }
    }
}

/// Sends `refusal` and closes the connection.
///
/// Before the refusal, waits until a part of the request has arrived, because a client that gets a response before it
/// has sent a request reports an error. After the refusal, reads and discards bytes until the client closes its side.
/// Closing a socket with unread bytes would reset the connection, and the client would discard the refusal.
async fn send_refusal(mut stream: TcpStream, refusal: Bytes) {
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
    // Errors and timeouts are ignored: a client that has disconnected or reads too slowly does not get the refusal.
    let _ = tokio::time::timeout(REFUSAL_TIME_MAX, closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_to_end(client: &mut TcpStream) -> String {
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
        let (sender, mut connections) = tokio::sync::mpsc::channel(1);
        accepted.spawn(async move {
            loop {
                sender.send(listener.accept().await).await.unwrap();
            }
        });

        let _first = TcpStream::connect(address).await.unwrap();
        let slot = connections.recv().await.unwrap();
        for _ in 0..3 {
            let mut refused = TcpStream::connect(address).await.unwrap();
            refused.write_all(&[b' '; 100_000]).await.unwrap();
            assert_eq!(read_to_end(&mut refused).await, "full", "the client receives the whole refusal");
        }
        drop(slot);
        let _next = TcpStream::connect(address).await.unwrap();
        drop(connections.recv().await.unwrap());
    }
}
