//! Deterministic simulation of crashes and faults, for tests: servers, clients and a topic share one bucket, and a seed
//! determines the schedule.
//!
//! ```text
//!   seed ─┬─► workload ─► schedule: servers, clients ─► store client ─► scheduler ─► objects
//!         └─► random ─► store faults (the outcome of each request) ─────────┘           │
//!                                                                             audit ◄───┘ without our own readers
//! ```
//!
//! In: a seed. Out: a bucket, and whether its contents are as expected.
//!
//! **Invariant:** the same seed gives the same schedule: all randomness is seeded, and an actor acts only while all others
//! wait.

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
