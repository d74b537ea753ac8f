//! The house from outside: whole servers, real clients, and the rules of the source tree.
//!
//! `tests/clients/setup.sh` installs the clients, the S3 server, Kafka with Debezium, and PostgreSQL. Without one of them its tests
//! are skipped, which is printed and counted; in CI they fail (`needs.rs`).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]
#![expect(clippy::print_stdout, reason = "a failing test shows what the server said")]

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
