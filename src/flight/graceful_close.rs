//! Closes connections without losing data that was already sent.
//!
//! If a socket is closed while the client is still sending, the operating system responds with a reset. The reset makes
//! the client discard data that it has not read yet, such as the end of a result or the status that explains why the
//! result ended. Before a socket is closed, the server therefore reads and discards incoming data, until the client
//! closes its side or [`LINGER_MAX`] has passed.
//!
//! A connection is also closed if the client sends no data for [`SILENCE_MAX`]. HTTP/2 pings detect a dead client only
//! after the HTTP/2 connection has been set up. Without this limit, a client that disappears earlier would occupy a
//! connection slot forever.

use std::io::{ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::{KEEPALIVE_INTERVAL, KEEPALIVE_WAIT_MAX};
use crate::listener::ConnectionSlot;

/// A connection is closed if the client sends no data for this long. A client that responds to pings sends data more
/// often.
const SILENCE_MAX: Duration =
    KEEPALIVE_INTERVAL.saturating_add(KEEPALIVE_WAIT_MAX).saturating_add(Duration::from_secs(10));
/// The maximum time that the server waits for the client to close its side of a connection.
const LINGER_MAX: Duration = Duration::from_secs(3);
/// The size of the buffer for discarded data.
const SCRATCH_BYTES: usize = 4 * 1024;

/// A TCP connection that, before it is closed, waits for the client to close its side.
#[derive(Debug)]
pub(super) struct GracefulClose {
    stream: TcpStream,
    /// The time at which the server stops waiting for the client, or `None` while the connection is in use.
    deadline: Option<Pin<Box<Sleep>>>,
    last_read: Instant,
    silence: Pin<Box<Sleep>>,
    _slot: ConnectionSlot,
}

impl GracefulClose {
    pub(super) fn new(stream: TcpStream, slot: ConnectionSlot) -> Self {
        let silence = Box::pin(tokio::time::sleep(SILENCE_MAX));
        Self { stream, deadline: None, last_read: Instant::now(), silence, _slot: slot }
    }

    /// Returns `Ready` if the client has been silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.silence.as_mut().poll(cx));
            let end = self.last_read + SILENCE_MAX;
            if end <= Instant::now() {
                return Poll::Ready(());
            }
            // Resetting the timer at every read would be slower, so it is reset only here, when it has fired too early.
            self.silence.as_mut().reset(end);
        }
    }
}

impl AsyncRead for GracefulClose {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(outcome) => {
                self.last_read = Instant::now();
                Poll::Ready(outcome)
            }
            Poll::Pending => self.poll_silence(cx).map(|()| Err(ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncWrite for GracefulClose {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.deadline.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_MAX)));
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut scratch = [0; SCRATCH_BYTES];
            let mut scratch = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => {}
                // The client has closed its side or has disconnected. Either way, it does not read any more data.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for GracefulClose {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}
