//! The wall clock: the only place that reads it. Everything else gets a [`Clock`] or a time as an argument.
//!
//! Times are microseconds since the Unix epoch, UTC ([`Micros`]), the unit of every time column.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

/// Microseconds in a second.
pub const SECOND: Micros = 1_000_000;
/// Microseconds in a UTC day.
pub const DAY: Micros = 86_400 * SECOND;

/// Where the time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that a test sets by hand.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `now` until it is set.
    pub fn fixed(now: Micros) -> Self {
        Self::Fixed(Arc::new(AtomicI64::new(now)))
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> Micros {
        match self {
            Self::System => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(Micros::MAX)),
            Self::Fixed(now) => now.load(Ordering::Relaxed),
        }
    }

    /// The time now, in whole seconds: the unit of a token's claims.
    pub fn now_seconds(&self) -> i64 {
        self.now().div_euclid(SECOND)
    }

    /// Sets a fixed clock; the machine's clock cannot be set.
    pub fn set(&self, now: Micros) {
        match self {
            Self::System => {}
            Self::Fixed(cell) => cell.store(now, Ordering::Relaxed),
        }
    }
}
