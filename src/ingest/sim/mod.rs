//! A deterministic simulation of crashes and store faults, for tests.
//!
//! Servers, clients, topic readers and maintenance actors share one bucket. A seed determines the schedule: the order
//! of their operations, the requests that fail, and the times at which processes crash.
//!
//! ```text
//!   seed ─┬─► workload ─► schedule: the actors ────────► store client ─► scheduler ─► objects
//!         └─► random ─► store faults (the outcome of each request) ─────────┘           │
//!                                                                             audit ◄───┘ without our own readers
//! ```
//!
//! A test runs a schedule and then audits the contents of the bucket.
//!
//! **Invariant:** the same seed produces the same schedule. All random number generators are seeded, and only one
//! actor runs at a time. The other actors are blocked in a call to the simulated object store.

mod tests;

pub(crate) mod schedule;
mod topic_reader;

mod maintenance_actor;
mod retention_actor;
mod vacuum_actor;

pub(crate) mod workload;

mod actors;
mod server;

mod store_client;

mod store_scheduler;

mod random;
mod store_faults;

mod audit;
mod audit_deletes;
