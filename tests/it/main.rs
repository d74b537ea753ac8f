//! Integration tests, which run server processes with real clients and check the source tree.
//!
//! `tests/clients/setup.sh` installs the clients, the S3 server, Kafka with Debezium, PostgreSQL and MariaDB. If one of
//! these is not installed, the tests that need it are skipped, and are listed at the end of the run. In CI, they fail instead
//! (see `requirements.rs`).

#![expect(clippy::unwrap_used, reason = "a failed `unwrap` fails the test and reports its location")]
#![expect(clippy::print_stdout, reason = "a failing test prints the server's output")]

mod bi;
mod bounds;
mod broker;
mod cli;
mod client_suite;
mod clients;
mod crash;
mod debezium;
mod demo;
mod disk;
mod docs_sql;
mod identity_provider;
mod kafka;
mod kafka_compaction;
mod kafka_login;
mod kafka_positions;
mod kafka_states;
mod lake_rewrites;
mod lookups;
mod maintenance;
mod merge;
mod oracle;
mod order_feed;
mod packaging;
mod ports;
mod postgres_oracle;
mod proxy;
mod quarantine;
mod registry;
mod requirements;
mod retention;
mod s3;
mod senders;
mod server;
mod shutdown;
mod sql;
mod tacosoft;
mod tpch;
mod types;
mod upload_memory;

mod source_tree;
mod tidy;
