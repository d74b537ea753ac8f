//! The wall clock. This is the only module that reads it; all other code takes a [`Clock`] or a time as an argument.
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

/// A source of the current time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system clock.
    #[default]
    System,
    /// A clock that a test sets by hand.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that returns `now` until it is set.
    pub fn fixed(now: Micros) -> Self {
        Self::Fixed(Arc::new(AtomicI64::new(now)))
    }

    /// The current time.
    #[expect(clippy::disallowed_methods, reason = "the only code that reads the wall clock")]
    pub fn now(&self) -> Micros {
        match self {
            Self::System => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(Micros::MAX)),
            Self::Fixed(now) => now.load(Ordering::Relaxed),
        }
    }

    /// The current time in whole seconds, the unit of a token's time claims.
    pub fn now_seconds(&self) -> i64 {
        self.now().div_euclid(SECOND)
    }

    /// Sets a fixed clock. Does nothing to the system clock.
    pub fn set(&self, now: Micros) {
        match self {
            Self::System => {}
            Self::Fixed(cell) => cell.store(now, Ordering::Relaxed),
        }
    }
}
