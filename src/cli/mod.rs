//! The command line. This module defines the commands, loads the configuration, and maps the result of a command to an
//! exit code. Each command has its own file.
//!
//! ```text
//!   arguments ─► Cli ─► serve, demo, token, revoke, config, transform, compact (use the checked configuration)
//!                   └─► ingest, quarantine, sources, query, tables, health, maintenance (send requests to a running
//!                       server)
//!                   └─► completions
//! ```
//!
//! **Invariant:** only results are written to standard output, so the output can be piped to another program.
//! Everything else is written to standard error.

mod allocator;
mod serve;

mod demo;
pub mod demo_events;

mod revoke;
mod token;

mod client;
mod ingest;
mod ingest_input;
mod quarantine;
mod sources;

mod query;
mod tables;

mod health;

mod compact;
mod maintenance;

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

/// Multi-tenant analytics server over open Delta tables, with Arrow Flight SQL and HTTP endpoints
#[derive(Debug, Parser)]
#[command(
    name = "glasshouse",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  glasshouse demo                                         run a server with synthetic events
  glasshouse -c /etc/glasshouse.toml serve                run the server
  TOKEN=$(glasshouse token --tenant acme --scope read)    create a token for development
  glasshouse query --token \"$TOKEN\" 'select count(*) from call_events'

Exit codes:
  0 success, 1 failure, 2 invalid usage, 3 invalid configuration, 4 refused (invalid token or no permission),
  5 server not reachable"
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
    Revoke(revoke::Args),
    Ingest(ingest::Args),
    Quarantine(quarantine::Args),
    Sources(sources::Args),
    Query(query::Args),
    Config(config::Args),
    Transform(transform::Args),
    Tables(tables::Args),
    Health(health::Args),
    Maintenance(maintenance::Args),
    Compact(compact::Args),
    Completions(completions::Args),
}

/// The exit codes of specific failures. Other exit codes are 0 (success), 1 (any other failure) and 2 (invalid usage,
/// which clap reports).
mod exit {
    /// The configuration has errors.
    pub(super) const CONFIG: u8 = 3;
    /// The token is invalid or does not permit the request.
    pub(super) const REFUSED: u8 = 4;
    /// The server, or a service that it depends on, is not reachable.
    pub(super) const UNREACHABLE: u8 = 5;
}

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    run(Cli::parse()).unwrap_or_else(|failure| {
        failure.write();
        failure.code()
    })
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let load = || Config::from_environment(cli.config.as_deref());
    let code = match &cli.command {
        Command::Serve(args) => serve::run(args, load()?)?,
        Command::Demo(args) => demo::run(args, load()?)?,
        Command::Token(args) => token::run(args, &load()?)?,
        Command::Revoke(args) => revoke::run(args, &load()?)?,
        Command::Ingest(args) => ingest::run(args)?,
        Command::Quarantine(args) => quarantine::run(args)?,
        Command::Sources(args) => sources::run(args)?,
        Command::Query(args) => query::run(args)?,
        Command::Config(args) => config::run(args, &load()?)?,
        Command::Transform(args) => transform::run(args, &load()?)?,
        Command::Tables(args) => tables::run(args)?,
        Command::Health(args) => health::run(args)?,
        Command::Maintenance(args) => maintenance::run(args)?,
        Command::Compact(args) => compact::run(args, &load()?)?,
        Command::Completions(args) => completions::run(args),
    };
    Ok(code)
}

/// The reason why a command failed.
#[derive(Debug)]
enum Failure {
    /// The configuration has errors. The text contains one error per line.
    Config(String),
    /// The configuration is valid, but the command failed.
    Error(Error),
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Failure {
    fn write(&self) {
        match self {
            Self::Config(errors) => write_stderr(errors),
            Self::Error(error) => write_error(error),
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

/// The maximum time to wait for the runtime's threads after the command has finished.
const THREADS_TIME_MAX: Duration = Duration::from_millis(250);

/// Creates missing secret files, unless other hosts can reach the server. Returns a message for each new file.
fn create_missing_secrets(config: &Config) -> Result<Vec<String>> {
    if config.is_exposed() {
        return Ok(Vec::new());
    }
    let created = crate::tenancy::create_missing_secrets(&config.auth)?;
    Ok(created.iter().map(|path| format!("created {} with a new secret that signs tokens", path.display())).collect())
}

/// Runs a command's future on a runtime with one thread per core. Each thread has the stack size that SQL statements
/// need.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    allocator::configure();
    let stack = crate::query::STACK_BYTES_MIN;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(stack).enable_all().build();
    let runtime = runtime.map_err(|error| Error::internal("cannot start the runtime").with_source(error))?;
    let outcome = runtime.block_on(command);
    // Dropping the runtime would wait for its threads without a time limit, so a store that hangs would keep the
    // process alive.
    runtime.shutdown_timeout(THREADS_TIME_MAX);
    outcome
}

/// Writes one line to standard output. Write errors are ignored, because a command such as `head` may close the pipe
/// early.
fn write_stdout(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes one line to standard error.
fn write_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes an error and its causes to standard error.
fn write_error(error: &Error) {
    write_stderr(&format!("error: {error}"));
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        write_stderr(&format!("  caused by: {inner}"));
        cause = inner.source();
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Parses the arguments of one command in a test.
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
    fn errors_map_to_exit_codes() {
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
