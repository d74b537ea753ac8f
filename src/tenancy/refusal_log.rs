//! Logs refused tokens, so that an operator sees why a caller is refused.
//!
//! Anyone can send tokens, so the number of lines is limited. **Invariant:** a line contains no part of a token except its
//! issuer, which has been checked for its length and for control characters.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::claims::TEXT_BYTES_MAX;
use crate::error::Error;

/// The maximum number of lines in one [`PERIOD`].
const LINES_MAX: u64 = 10;
/// The time after which the number of lines is counted anew.
const PERIOD: Duration = Duration::from_secs(10);

/// Logs a limited number of refusals.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<Option<Period>>);

#[derive(Debug)]
struct Period {
    started: Instant,
    refusals: u64,
}

impl RefusalLog {
    /// Logs why a token was refused, at the level info. `issuer` is the issuer that the token names, and `trusted` are the
    /// configured issuers.
    pub(super) fn add(&self, issuer: Option<&str>, trusted: &str, error: &Error) {
        let Some(omitted) = self.count(Instant::now()) else { return };
        let issuer = issuer.filter(|issuer| issuer.len() <= TEXT_BYTES_MAX).unwrap_or("(none)");
        tracing::info!(reason = error.message(), issuer, trusted, omitted, "refused a token");
    }

    /// Counts a refusal. Returns the number of refusals that were not logged since the last logged one, or `None` if this
    /// refusal must not be logged either.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = period.get_or_insert(Period { started: now, refusals: 0 });
        let mut omitted = 0;
        if now.duration_since(current.started) >= PERIOD {
            omitted = current.refusals.saturating_sub(LINES_MAX);
            *current = Period { started: now, refusals: 0 };
        }
        current.refusals += 1;
        (current.refusals <= LINES_MAX).then_some(omitted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited_and_omitted_refusals_are_counted() {
        let (log, start) = (RefusalLog::default(), Instant::now());
        let counted: Vec<_> = (0..25).map(|_| log.count(start)).collect();
        assert_eq!(counted.iter().filter(|line| line.is_some()).count() as u64, LINES_MAX);
        assert_eq!(log.count(start + PERIOD), Some(15));
        assert_eq!(log.count(start + PERIOD), Some(0));
    }
}
