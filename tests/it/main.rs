//! Integration tests: server processes with real clients, and checks of the source tree.
//!
//! `tests/clients/setup.sh` installs the clients, the S3 server, Kafka with Debezium, and PostgreSQL. If one of them is missing, the
//! tests that need it are skipped, printed and counted; in CI they fail (`needs.rs`).

#![expect(clippy::unwrap_used, reason = "a failed `unwrap` fails the test and reports its location")]
#![expect(clippy::print_stdout, reason = "a failing test prints the server's output")]

mod broker;
mod clients;
mod command;
mod crash;
mod demo;
mod disk;
mod flood;
mod kafka;
mod kafka_login;
mod kafka_positions;
mod needs;
mod oracle;
mod packaging;
mod ports;
mod provider;
mod proxy;
mod quarantine;
mod registry;
mod s3;
mod senders;
mod server;
mod sql;
mod stop;
mod suite;
mod tacosoft;

mod source;
mod tidy;
