//! The house from outside: whole servers, real clients, and the rules of the source tree.
//!
//! `tests/clients/setup.sh` installs the clients and the S3 server; without them their tests fail and say so.

mod clients;
mod crash;
mod s3;
mod senders;
mod server;
mod suite;

mod source;
mod tidy;
