//! The command `glasshouse config` checks the configuration or shows the effective values.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand};

use super::{exit, write_stderr, write_stdout};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::Result;
use crate::server;
use crate::tenancy::{Verifier, assume_missing_secrets};
use crate::transform::Lookups;

/// Check or show the configuration.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse config check                        report all errors with their locations; exit code 3 if any
  glasshouse config show                         show the effective values and explain each setting
  glasshouse config show --brief > now.toml      show the effective values only; secrets are redacted
  GLASSHOUSE__QUERY__ROWS_MAX=1000 glasshouse config show --brief

An environment variable GLASSHOUSE__SECTION__KEY overrides a key of the file, for example
GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every error that the server would report at startup
    Check,
    /// Print the effective values as TOML; secrets are redacted
    Show {
        /// Omit the explanations
        #[arg(long)]
        brief: bool,
    },
}

/// Checks or shows the configuration.
pub(crate) fn run(args: &Args, config: &Config) -> Result<ExitCode> {
    match args.command {
        Command::Show { brief } => write_stdout(config.show(!brief).trim_end()),
        Command::Check => {
            let errors = errors(config);
            if !errors.is_empty() {
                write_stderr(&errors.join("\n"));
                return Ok(exit::CONFIG.into());
            }
            write_stdout(&summary(config));
            if let Ok(verifier) = verifier(config) {
                verifier.describe_issuers().iter().for_each(|line| write_stdout(line));
                if let Some(count) = verifier.revocation_count() {
                    write_stdout(&format!("revocations of tokens: {count}"));
                }
            }
            for (source, lookups) in unchecked(config) {
                write_stderr(&format!(
                    "the transform of source `{source}` was not checked, because these lookup tables are not loaded: {}; to check \
                     the transform without loading them, declare their `columns`",
                    lookups.join(", ")
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the errors that parsing the configuration file cannot find: errors in `.proto` files, key files, the file
/// with revocations, the columns of policies, librdkafka options, files of lookup tables, and transforms.
fn errors(config: &Config) -> Vec<String> {
    let contracts = server::contracts(config);
    let keys = verifier(config).err();
    let lookups = Lookups::new(&config.lookups, &config.ingest, Arc::default());
    let unloaded = lookups.load_files().into_iter().map(|(_, error)| error);
    let known = contracts.as_deref().ok();
    let sources = server::sources(config, known, &lookups, &Clock::System, &Arc::default()).err();
    contracts.err().into_iter().chain(keys).chain(unloaded).chain(sources).map(|error| error.to_string()).collect()
}

/// Creates the same verifier as the server. If no other host can reach the server, it would create missing secret
/// files. This check uses random secrets instead, and creates no files.
fn verifier(config: &Config) -> Result<Verifier> {
    match config.is_exposed() {
        true => Verifier::new(&config.auth, &config.policy, Clock::System),
        false => Verifier::new(&assume_missing_secrets(&config.auth), &config.policy, Clock::System),
    }
}

/// Returns the sources whose transforms cannot be checked yet. Each source is paired with the lookup tables that its
/// transform needs and that are not loaded.
fn unchecked(config: &Config) -> Vec<(String, Vec<String>)> {
    let Ok(contracts) = server::contracts(config) else { return Vec::new() };
    let lookups = Lookups::new(&config.lookups, &config.ingest, Arc::default());
    drop(lookups.load_files());
    let waits = |source: &String| {
        let transform = server::transform(config, source, Some(&contracts), &lookups).ok()??;
        Some((source.clone(), transform.waits_for())).filter(|(_, waits)| !waits.is_empty())
    };
    config.sources.keys().filter_map(waits).collect()
}

/// Returns one line with the number of tables, sources and issuers, and the names of tables without a policy.
fn summary(config: &Config) -> String {
    let count = |number: usize, thing: &str| format!("{number} {thing}{}", if number == 1 { "" } else { "s" });
    let mut line = format!(
        "the configuration is valid: {}, {}, {}",
        count(config.tables.len(), "table"),
        count(config.sources.len(), "source"),
        count(config.auth.issuers.len(), "issuer")
    );
    let hidden: Vec<_> = config.tables.keys().filter(|name| !config.policy.contains_key(*name)).cloned().collect();
    if !hidden.is_empty() {
        line.push_str(&format!(
            "; tenants cannot see these tables, because they have no [policy.NAME]: {}",
            hidden.join(", ")
        ));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::FILE;

    /// Reads the reference configuration with the given environment variables, and returns the errors that `config
    /// check` would report.
    fn check(env: &[(&str, &str)]) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
        let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        errors(&Config::load(Some(&path), env).unwrap()).join("\n")
    }

    #[test]
    fn the_reference_configuration_has_no_errors() {
        assert_eq!(check(&[]), "");
    }

    #[test]
    fn missing_files_are_reported() {
        let secret = ("GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET_FILE", "missing/secret");
        assert_eq!(check(&[secret]), "", "the server creates this file");
        let exposed = [("GLASSHOUSE__HTTP__LISTEN", "[::]:1"), ("GLASSHOUSE__HTTP__PLAINTEXT_ALLOWED", "true"), secret];
        let error = check(&exposed);
        assert!(error.contains("missing/secret: does not exist: create it with `umask 077; openssl rand"), "{error}");
        let error = check(&[secret, ("GLASSHOUSE__AUTH__REVOCATIONS_FILE", "missing/revocations.toml")]);
        assert!(error.contains("auth.revocations_file: ") && error.contains("create an empty file"), "{error}");
    }

    #[test]
    fn errors_that_only_the_contract_finds_are_reported() {
        let cases = [
            (
                "POLICY__CALL_EVENTS__COLUMNS",
                "event_id, moss",
                "policy.call_events: there is no column `moss`, did you mean `mos`?",
            ),
            (
                "TABLES__CALL_EVENTS__TENANT",
                "acount_id",
                "table `call_events`: `tenant` names the unknown column `acount_id`",
            ),
            ("TABLES__CALL_EVENTS__MESSAGE", "CallEvent", "table `call_events`: `message` names `CallEvent`"),
        ];
        for (variable, value, expected) in cases {
            let given = check(&[(&format!("GLASSHOUSE__{variable}"), value)]);
            assert!(given.contains(expected), "{variable}={value}\n  gives {given}\n  not   {expected}");
        }
    }
}
