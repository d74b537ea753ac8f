//! The command `glasshouse token` creates a token for development, signed with the shared secret of a configured
//! issuer.
//!
//! Tokens for production come from an identity provider. If an issuer has no shared secret, the command cannot create
//! tokens for it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::Value;

use super::{write_stderr, write_stdout};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::error::Result;
use crate::tenancy::{DevelopmentToken, Scope};

/// Create a token for development.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  Create a token that can query as the tenant acme for one hour:
    glasshouse token --tenant acme
  Create a token that can query and send events for seven days:
    glasshouse token --tenant acme --scope read --scope ingest --expires 7d
  Create a token with a claim for row rules:
    glasshouse token --tenant acme --claim 'region=[\"eu\",\"us\"]'
  Create an operator's token that can send events for every tenant, but cannot query:
    glasshouse token --operator --subject pipeline --scope ingest")]
pub(crate) struct Args {
    /// The tenant that the token gives access to
    #[arg(long, required_unless_present = "operator", conflicts_with = "operator")]
    tenant: Option<String>,
    /// Create an operator's token, which has no tenant; the subject must be one of the issuer's `operators`
    #[arg(long, requires = "subject")]
    operator: bool,
    /// The subject of the token [default: the tenant]
    #[arg(long)]
    subject: Option<String>,
    /// A scope: read, ingest or admin; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope, default_value = "read")]
    scopes: Vec<Scope>,
    /// The issuer's name in the configuration [default: the only issuer with a secret]
    #[arg(long)]
    issuer: Option<String>,
    /// How long the token is valid, such as 15m, 1h or 7d
    #[arg(long, value_name = "TIME", value_parser = config::parse_time, default_value = "1h")]
    expires: Duration,
    /// An additional claim with a JSON value; may be given several times
    #[arg(long = "claim", value_name = "KEY=JSON", value_parser = claim)]
    claims: Vec<(String, Value)>,
}

/// Prints only the token, so scripts can store the output in a variable.
pub(crate) fn run(args: &Args, config: &Config) -> Result<ExitCode> {
    super::create_missing_secrets(config)?.iter().for_each(|line| write_stderr(line));
    write_stdout(&args.mint().sign(&config.auth, &Clock::System)?);
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn mint(&self) -> DevelopmentToken {
        let subject = self.subject.as_ref().or(self.tenant.as_ref());
        DevelopmentToken {
            issuer: self.issuer.clone().unwrap_or_default(),
            tenant: self.tenant.clone(),
            subject: subject.cloned().unwrap_or_default(),
            scopes: self.scopes.clone(),
            age: self.expires,
            claims: self.claims.iter().cloned().collect(),
        }
    }
}

fn scope(word: &str) -> Result<Scope, String> {
    Scope::parse(word).ok_or_else(|| format!("must be one of {}", Scope::ALL.map(Scope::as_str).join(", ")))
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (key, json) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("must be KEY=JSON")?;
    let value = serde_json::from_str(json)
        .map_err(|error| format!("the value must be JSON ({error}); put a string in quotes: '{key}=\"{json}\"'"))?;
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::parse;
    use super::super::{Cli, Command};
    use super::*;

    fn mint(args: &[&str]) -> Result<DevelopmentToken, String> {
        match parse(&[&["token"], args].concat()) {
            Ok(Cli { command: Command::Token(args), .. }) => Ok(args.mint()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn arguments_determine_the_token() {
        let mint = mint(&[
            "--tenant",
            "acme",
            "--scope",
            "read",
            "--scope",
            "ingest",
            "--expires",
            "7d",
            "--claim",
            "region=[\"eu\"]",
        ]);
        let mint = mint.unwrap();
        assert_eq!((mint.tenant.as_deref(), mint.subject.as_str()), (Some("acme"), "acme"));
        assert_eq!(mint.scopes, [Scope::Read, Scope::Ingest]);
        assert_eq!(mint.age, Duration::from_secs(7 * 86_400));
        assert_eq!(mint.claims["region"], json!(["eu"]));
    }

    #[test]
    fn an_operators_token_has_a_subject_and_no_tenant() {
        let operator = mint(&["--operator", "--subject", "pipeline", "--scope", "ingest"]).unwrap();
        assert_eq!((operator.tenant, operator.subject.as_str()), (None, "pipeline"));
        let wrong: [&[&str]; 6] = [
            &[],
            &["--operator"],
            &["--operator", "--subject", "x", "--tenant", "acme"],
            &["--tenant", "acme", "--scope", "write"],
            &["--tenant", "acme", "--expires", "soon"],
            &["--tenant", "acme", "--claim", "region=eu"],
        ];
        for args in wrong {
            assert!(mint(args).is_err(), "{args:?}");
        }
    }
}
