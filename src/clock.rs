//! The wall clock. Only this module reads the system's clock. Code that needs the current time takes a [`Clock`] or a
//! time as an argument.
//!
//! Times are in microseconds since the Unix epoch in UTC ([`Micros`]), which is also the unit of every time column.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

/// A time in microseconds since 1970-01-01T00:00:00Z, or a duration in microseconds.
pub type Micros = i64;

/// The number of microseconds in a second.
pub const SECOND: Micros = 1_000_000;
/// The number of microseconds in a UTC day.
pub const DAY: Micros = 86_400 * SECOND;

/// A source of the current time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system clock.
    #[default]
    System,
    /// A clock that returns a fixed time, which a test sets.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// Creates a clock that returns `now` until a test sets another time.
    pub fn fixed(now: Micros) -> Self {
        Self::Fixed(Arc::new(AtomicI64::new(now)))
    }

    /// Returns the current time.
    #[expect(clippy::disallowed_methods, reason = "the only code that reads the wall clock")]
    pub fn now(&self) -> Micros {
        match self {
            Self::System => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(Micros::MAX)),
            Self::Fixed(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Returns the current time in whole seconds, the unit of a token's time claims.
    pub fn now_seconds(&self) -> i64 {
        self.now().div_euclid(SECOND)
    }

    /// Sets the time of a fixed clock. Has no effect on the system clock.
    pub fn set(&self, now: Micros) {
        match self {
            Self::System => {}
            Self::Fixed(cell) => cell.store(now, Ordering::Relaxed),
        }
    }
}
