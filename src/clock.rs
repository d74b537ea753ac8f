//! The wall clock. Only this module reads the system's clock. Code that needs the current time takes a [`Clock`] or a
//! time as an argument.
//!
//! Times are in microseconds since the Unix epoch in UTC ([`Micros`]), which is also the unit of every time column.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use tokio::time::Instant;

/// A time in microseconds since 1970-01-01T00:00:00Z, or a duration in microseconds.
pub type Micros = i64;

/// The number of microseconds in a second.
pub const SECOND: Micros = 1_000_000;
/// The number of microseconds in a UTC day.
pub const DAY: Micros = 86_400 * SECOND;

/// A moment from which time is measured.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    wall: Micros,
    monotonic: Instant,
}

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

    /// Returns the current moment.
    pub fn moment(&self) -> Moment {
        Moment { wall: self.now(), monotonic: Instant::now() }
    }

    /// Returns the time since `moment`, or more. The monotonic clock does not count the time for which the machine was
    /// suspended, and the wall clock can be set back. The result is therefore the larger of both times.
    pub fn longest_since(&self, moment: Moment) -> Micros {
        let [wall, monotonic] = self.since(moment);
        wall.max(monotonic)
    }

    /// Returns the time since `moment`, or less: the smaller of the times that the wall clock and the monotonic clock
    /// have measured.
    pub fn shortest_since(&self, moment: Moment) -> Micros {
        let [wall, monotonic] = self.since(moment);
        wall.min(monotonic).max(0)
    }

    fn since(&self, moment: Moment) -> [Micros; 2] {
        let wall = self.now().saturating_sub(moment.wall);
        match self {
            Self::System => [wall, i64::try_from(moment.monotonic.elapsed().as_micros()).unwrap_or(Micros::MAX)],
            Self::Fixed(_) => [wall, wall],
        }
    }

    /// Sets the time of a fixed clock. Has no effect on the system clock.
    pub fn set(&self, now: Micros) {
        match self {
            Self::System => {}
            Self::Fixed(cell) => cell.store(now, Ordering::Relaxed),
        }
    }
}
