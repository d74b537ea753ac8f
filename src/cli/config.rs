//! `glasshouse config`: check the configuration, or show the effective values.
//!
//! In: the parsed configuration. Out: every error that a server would report at startup (contracts, sources, keys,
//! policies), or the effective values with secrets redacted.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand};

use super::{exit, say, tell};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::Result;
use crate::server;
use crate::tenancy::Verifier;
use crate::transform::Lookups;

/// Check or show the configuration.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  glasshouse config check                        exit code 3 and all errors with their locations, or 0
  glasshouse config show                         effective values, with an explanation of each setting
  glasshouse config show --brief > now.toml      effective values only; secrets are redacted
  GLASSHOUSE__QUERY__ROWS_MAX=1000 glasshouse config show --brief

An environment variable overrides a key: GLASSHOUSE__SECTION__KEY, as in GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Report every error that the server would report at startup
    Check,
    /// Print the effective values as TOML, secrets redacted
    Show {
        /// Omit the explanations
        #[arg(long)]
        brief: bool,
    },
}

/// Checks or shows the configuration.
pub(crate) fn run(args: &Args, config: &Config) -> Result<ExitCode> {
    match args.command {
        Command::Show { brief } => say(config.show(!brief).trim_end()),
        Command::Check => {
            let faults = faults(config);
            if !faults.is_empty() {
                tell(&faults.join("\n"));
                return Ok(exit::CONFIG.into());
            }
            say(&summary(config));
            for (source, lookups) in unchecked(config) {
                tell(&format!(
                    "the transform of `{source}` can only be checked after its lookup tables are loaded ({}): declare \
                     their `columns` to check it here",
                    lookups.join(", ")
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Errors outside the configuration file itself: `.proto` files, key files, columns of policies, Kafka's options, files
/// of lookup tables, transforms.
fn faults(config: &Config) -> Vec<String> {
    let contracts = server::contracts(config);
    let keys = Verifier::new(&config.auth, &config.policy, Clock::System).err();
    let lookups = Lookups::new(&config.lookups, &config.ingest, Arc::default());
    let unloaded = lookups.load_files().into_iter().map(|(_, fault)| fault);
    let known = contracts.as_deref().ok();
    let sources = server::sources(config, known, &lookups, &Clock::System, &Arc::default()).err();
    contracts.err().into_iter().chain(keys).chain(unloaded).chain(sources).map(|error| error.to_string()).collect()
}

/// Sources whose transforms cannot be checked yet, with the lookup tables that they need.
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

/// One summary line, which also names tables without a policy.
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
        line.push_str(&format!("; invisible without a section [policy.NAME]: {}", hidden.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::FILE;

    /// The errors of the reference configuration with these environment variables.
    fn check(env: &[(&str, &str)]) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
        let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        faults(&Config::load(Some(&path), env).unwrap()).join("\n")
    }

    #[test]
    fn the_reference_configuration_can_be_served() {
        assert_eq!(check(&[]), "");
    }

    #[test]
    fn what_only_a_contract_knows_is_checked_as_well() {
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
