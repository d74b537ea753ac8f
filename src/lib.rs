#![doc = include_str!("../docs/architecture.md")]

pub mod error;

pub mod clock;

pub mod config;

pub mod telemetry;

pub mod supervise;

mod http_client;

pub(crate) mod listener;

pub mod contract;
pub mod tenancy;

pub mod lake;

pub mod maintenance;

pub(crate) mod sql;

pub mod transform;

pub mod ingest;

pub mod query;

pub mod flight;
pub mod http;

pub mod server;

pub mod cli;
