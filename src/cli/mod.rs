//! The command line. Each command has its own file; this one lists them, loads the configuration and sets the exit code.
//!
//! ```text
//!   arguments ─► Cli ─► serve, demo, token, config, transform  (with the checked configuration)
//!                   └─► ingest, quarantine, sources, query, tables, health (clients of a running server)
//!                   └─► completions
//! ```
//!
//! **Invariant:** results go to standard output, everything else to standard error, so that output can be piped.

mod allocator;
mod serve;

pub mod call_traffic;
mod demo;

mod token;

mod client;
mod ingest;
mod quarantine;
mod sources;
mod upload_chunks;

mod query;
mod tables;

mod health;

mod completions;
mod config;
mod transform;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigErrors};
use crate::error::{Error, Kind, Result};

/// Multi-tenant analytics over open Delta tables: Arrow Flight SQL and HTTP, one signed token per tenant.
#[derive(Debug, Parser)]
#[command(
    name = "glasshouse",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  glasshouse demo                                             run a server with live events; prints commands to paste
  glasshouse -c /etc/glasshouse.toml serve                    run the server
  TOKEN=$(glasshouse token --tenant acme --scope read)        create a token for development
  glasshouse query --token \"$TOKEN\" 'select count(*) from call_events'

Exit codes:
  0 success, 1 failure, 2 invalid usage, 3 invalid configuration, 4 refused (token or rights), 5 server not reachable"
)]
struct Cli {
    /// The configuration file [default: glasshouse.toml in the current folder, if it exists]
    #[arg(long, short, global = true, env = "GLASSHOUSE_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Demo(demo::Args),
    Token(token::Args),
    Ingest(ingest::Args),
    Quarantine(quarantine::Args),
    Sources(sources::Args),
    Query(query::Args),
    Config(config::Args),
    Transform(transform::Args),
    Tables(tables::Args),
    Health(health::Args),
    Completions(completions::Args),
}

/// Exit codes besides 0 (success), 1 (failure) and 2 (invalid usage, by clap).
mod exit {
    /// The configuration has errors.
    pub(super) const CONFIG: u8 = 3;
    /// The token was refused or lacks a right.
    pub(super) const REFUSED: u8 = 4;
    /// The server, or a service that it needs, is not reachable.
    pub(super) const UNREACHABLE: u8 = 5;
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    run(Cli::parse()).unwrap_or_else(|failure| {
        failure.tell();
        failure.code()
    })
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let load = || Config::from_environment(cli.config.as_deref());
    let code = match &cli.command {
        Command::Serve(args) => serve::run(args, load()?)?,
        Command::Demo(args) => demo::run(args, load()?)?,
        Command::Token(args) => token::run(args, &load()?)?,
        Command::Ingest(args) => ingest::run(args)?,
        Command::Quarantine(args) => quarantine::run(args)?,
        Command::Sources(args) => sources::run(args)?,
        Command::Query(args) => query::run(args)?,
        Command::Config(args) => config::run(args, &load()?)?,
        Command::Transform(args) => transform::run(args, &load()?)?,
        Command::Tables(args) => tables::run(args)?,
        Command::Health(args) => health::run(args)?,
        Command::Completions(args) => completions::run(args),
    };
    Ok(code)
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// The configuration has errors; one per line.
    Config(String),
    /// The command itself failed.
    Error(Error),
}

impl From<ConfigErrors> for Failure {
    fn from(faults: ConfigErrors) -> Self {
        Self::Config(faults.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Failure {
    fn tell(&self) {
        match self {
            Self::Config(faults) => tell(faults),
            Self::Error(error) => complain(error),
        }
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) => exit::CONFIG.into(),
            Self::Error(error) => match error.kind() {
                Kind::Unauthenticated | Kind::Forbidden => exit::REFUSED.into(),
                Kind::Unavailable => exit::UNREACHABLE.into(),
                _ => ExitCode::FAILURE,
            },
        }
    }
}

/// How long to wait for the runtime's threads after the command has finished.
const THREADS_TIME_MAX: Duration = Duration::from_millis(250);

/// Runs a command's future on a runtime with one thread per core, with the stack size that SQL statements need.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    allocator::keep_memory();
    let stack = crate::query::STACK_BYTES_MIN;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(stack).enable_all().build();
    let runtime = runtime.map_err(|error| Error::internal("cannot start the runtime").with_source(error))?;
    let outcome = runtime.block_on(command);
    // Dropping the runtime would wait for its threads without a limit: a store that hangs would keep the process alive.
    runtime.shutdown_timeout(THREADS_TIME_MAX);
    outcome
}

/// Writes one line to standard output. Ignores a closed pipe, so that `| head` works.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes one line to standard error.
fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes an error and its causes to standard error.
fn complain(error: &Error) {
    tell(&format!("error: {error}"));
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        tell(&format!("  caused by: {inner}"));
        cause = inner.source();
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Parses the arguments of one command, as the tests of each command do.
    pub(super) fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["glasshouse"].iter().chain(args))
    }

    #[test]
    fn commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_a_public_surface() {
        let mut command = Cli::command().term_width(110);
        command.build();
        let mut text = command.render_help().to_string();
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let help = sub.render_help();
            text.push_str(&format!("\n--- {}\n{help}", sub.get_name()));
            let name = sub.get_name().to_owned();
            for inner in sub.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
                let help = inner.render_help();
                text.push_str(&format!("\n--- {name} {}\n{help}", inner.get_name()));
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn exit_codes_tell_what_to_do() {
        let cases = [
            (Failure::Config("x".into()), ExitCode::from(3)),
            (Error::unauthenticated("x").into(), ExitCode::from(4)),
            (Error::forbidden("x").into(), ExitCode::from(4)),
            (Error::unavailable("x").into(), ExitCode::from(5)),
            (Error::invalid("x").into(), ExitCode::FAILURE),
        ];
        for (failure, code) in cases {
            assert_eq!(failure.code(), code, "{failure:?}");
        }
    }
}
