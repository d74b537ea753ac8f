//! Finds free ports for servers that need a port in their configuration, and for servers that restart on the same port.
//!
//! The kernel assigns ports from its ephemeral range (`ip_local_port_range`) to outgoing connections, and to listeners
//! on port 0. The kernel may assign such a port to another process before the server starts or while it is down. A
//! client that tries to reach the server could even be assigned the server's port, and connect to itself.
//!
//! **Invariant:** no returned port is in the ephemeral range, and a test process never returns the same port twice.

use std::fs;
use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The first port that [`free_ports`] can return.
const FIRST: u32 = 10_000;
/// The usual start of the ephemeral range.
const EPHEMERAL: u32 = 32_768;

/// Returns ports on which no process listens.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    // The process id determines the first port, so parallel test processes use different ports.
    static STEP: AtomicU32 = AtomicU32::new(0);
    let count = ephemeral() - FIRST;
    [0; N].map(|_| {
        loop {
            let step = STEP.fetch_add(1, Ordering::Relaxed);
            let port = u16::try_from(FIRST + process::id().wrapping_mul(61).wrapping_add(step) % count).unwrap();
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break port;
            }
        }
    })
}

/// Returns the first port in the ephemeral range.
fn ephemeral() -> u32 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok());
    first.filter(|first| *first > 2 * FIRST).unwrap_or(EPHEMERAL)
}
