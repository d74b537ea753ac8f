//! Crashes and faults by seed, for tests: servers, clients and a topic over one bucket, where one seed is one schedule.
//!
//! ```text
//!   seed ─┬─► script (who sends what) ─► play: servers, cast ─► line ─► bucket ─► objects
//!         └─► dice ─► fate (what becomes of a request) ────────────────────┘         │
//!                                                                          audit ◄───┘ counted without our own readers
//! ```
//!
//! In: a seed. Out: a bucket, and whether it holds what it must.
//!
//! **Invariant:** the same seed is the same schedule: all chance is that of the dice, and nobody acts before all others wait.

mod tests;

pub(crate) mod play;

pub(crate) mod script;

mod cast;
mod server;

mod line;

mod bucket;

mod dice;
mod fate;

mod audit;
