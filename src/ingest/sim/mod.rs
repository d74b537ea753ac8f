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

pub(crate) mod schedule;

pub(crate) mod workload;

mod actors;
mod server;

mod store_client;

mod store_scheduler;

mod random;
mod store_faults;

mod audit;
