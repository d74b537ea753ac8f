//! The command line. Each command is a file; this one lists them, loads the configuration and ends the process.
//!
//! ```text
//!   arguments ─► Cli ─► serve, demo, token, config, transform  (with the checked configuration)
//!                   └─► ingest, quarantine, sources, query, tables, health (clients of a running server)
//!                   └─► completions
//! ```
//!
//! **Invariant:** answers go to standard output, everything else to standard error, so that output can be piped.

mod allocator;
mod serve;

pub mod call_traffic;
mod demo;

mod token;

mod chunks;
mod client;
mod ingest;
mod quarantine;
mod sources;

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
  glasshouse demo                                             a server with live events, and commands to paste
  glasshouse -c /etc/glasshouse.toml serve                    the server
  TOKEN=$(glasshouse token --tenant acme --scope read)        a token for development
  glasshouse query --token \"$TOKEN\" 'select count(*) from call_events'

Exit codes:
  0 done, 1 failed, 2 wrong usage, 3 faulty configuration, 4 refused (token or rights), 5 server not reachable"
)]
struct Cli {
    /// The configuration [default: glasshouse.toml, if it is here]
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

/// Exit codes beside 0 (done), 1 (failed) and 2 (wrong usage, by clap).
mod exit {
    /// The configuration has faults.
    pub(super) const CONFIG: u8 = 3;
    /// A token was refused, or does not allow it.
    pub(super) const REFUSED: u8 = 4;
    /// The server, or something it needs, is away.
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

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// Before it started: the configuration, fault by fault.
    Config(String),
    /// While it worked.
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

/// How long threads of the runtime may go on when the command is done.
const THREADS_TIME_MAX: Duration = Duration::from_millis(250);

/// Runs a command's future on a runtime with a thread per core, each with the stack that statements need.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    allocator::keep_memory();
    let stack = crate::query::STACK_BYTES_MIN;
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(stack).enable_all().build();
    let runtime = runtime.map_err(|error| Error::internal("cannot start the runtime").with_source(error))?;
    let outcome = runtime.block_on(command);
    // Dropping it would wait for its threads as long as they take: a store that hangs would keep the process.
    runtime.shutdown_timeout(THREADS_TIME_MAX);
    outcome
}

/// Writes one line to standard output. A reader that has gone away is no fault: `| head` is a way to read.
fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes one line to standard error.
fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Tells an error and what caused it to standard error.
fn complain(error: &Error) {
    tell(&format!("error: {error}"));
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        tell(&format!("  because {inner}"));
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
