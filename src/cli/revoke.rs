//! The command `glasshouse revoke`, which adds a revocation to the file `auth.revocations_file`, or lists its
//! revocations.
//!
//! The command does not send requests. Servers that read the same file notice the change within a few seconds.

use std::io::Read as _;
use std::process::ExitCode;

use clap::{ArgGroup, Args as ClapArgs};

use super::{write_stderr, write_stdout};
use crate::clock::Clock;
use crate::config::{AuthConfig, Config};
use crate::error::{Error, Result, did_you_mean};
use crate::tenancy::{
    Appended, RELOAD_INTERVAL, Revocation, RevokedTokens, append_revocation, parse_issued_before, revocation_of,
    revocations,
};

/// Revoke tokens before they expire.
#[derive(Debug, ClapArgs)]
#[command(
    group(ArgGroup::new("tokens").required(true).multiple(true)
        .args(["token", "token_id", "subject", "tenant", "issued_before", "list"])),
    after_help = "\
The command adds a revocation to the file that `auth.revocations_file` names, and creates the file if it does
not exist. Servers that read the file refuse the revoked tokens within a few seconds, and end their running
queries and uploads. To end a revocation, remove it from the file.

Examples:
  Revoke one token, which is read from standard input:
    glasshouse revoke --token - --reason 'found in a public repository' < token
  Revoke all tokens of a subject, including future ones:
    glasshouse revoke --issuer login --subject ann
  Revoke the current tokens of a subject, who can then get new ones:
    glasshouse revoke --issuer login --subject ann --issued-before now
  Revoke the current tokens of a tenant:
    glasshouse revoke --issuer login --tenant acme --issued-before now
  Revoke the tokens that an issuer created before a time:
    glasshouse revoke --issuer login --issued-before 2026-01-31T12:00:00Z
  List the revocations:
    glasshouse revoke --list"
)]
pub(crate) struct Args {
    /// The issuer's name in the configuration [default: the only issuer]
    #[arg(long)]
    issuer: Option<String>,
    /// Revoke this token, which must have an id (`jti`); `-` reads the token from standard input
    #[arg(long, conflicts_with_all = ["issuer", "token_id", "subject", "tenant", "issued_before"])]
    token: Option<String>,
    /// Revoke the token with this id (`jti`)
    #[arg(long, value_name = "JTI", conflicts_with_all = ["subject", "tenant", "issued_before"])]
    token_id: Option<String>,
    /// Revoke all tokens of this subject (`sub`)
    #[arg(long, conflicts_with = "tenant")]
    subject: Option<String>,
    /// Revoke the tokens of this tenant; requires --issued-before
    #[arg(long, requires = "issued_before")]
    tenant: Option<String>,
    /// Revoke only tokens that were issued before this time, and tokens without `iat`: an RFC 3339 time, or `now`
    #[arg(long, value_name = "TIME")]
    issued_before: Option<String>,
    /// Why the tokens are revoked; only operators see it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// List the revocations instead of adding one
    #[arg(long, conflicts_with_all = ["issuer", "token", "token_id", "subject", "tenant", "issued_before", "reason"])]
    list: bool,
}

/// Adds a revocation or lists all of them.
pub(crate) fn run(args: &Args, config: &Config) -> Result<ExitCode> {
    let auth = &config.auth;
    if args.list {
        revocations(auth)?.iter().for_each(|revocation| write_stdout(&revocation.to_string()));
        return Ok(ExitCode::SUCCESS);
    }
    let revocation = args.revocation(auth, &Clock::System)?;
    match append_revocation(auth, &revocation)? {
        Appended::Added => {
            write_stdout(&format!("revoked {revocation}"));
            let (file, seconds) = (auth.revocations_file.clone().unwrap_or_default(), RELOAD_INTERVAL.as_secs());
            write_stderr(&format!("servers that read {} refuse these tokens within {seconds} s", file.display()));
        }
        Appended::AlreadyRevoked => write_stdout(&format!("already revoked {revocation}")),
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn revocation(&self, auth: &AuthConfig, clock: &Clock) -> Result<Revocation> {
        let reason = self.reason.clone();
        if let Some(token) = &self.token {
            let token = if token == "-" { read_token(auth)? } else { token.clone() };
            return Ok(Revocation { reason, ..revocation_of(token.trim(), auth)? });
        }
        let issuer = issuer(self.issuer.as_deref(), auth)?;
        let before = self.issued_before.as_ref().map(|text| issued_before(text, clock)).transpose()?;
        let (token_id, subject, tenant) = (self.token_id.clone(), self.subject.clone(), self.tenant.clone());
        let tokens = RevokedTokens::new(token_id, subject, tenant, before).map_err(Error::invalid)?;
        Ok(Revocation { issuer, tokens, reason })
    }
}

/// Parses a time, and returns it in seconds since 1970. Refuses a time in the future, because it would also revoke new
/// tokens.
fn issued_before(text: &str, clock: &Clock) -> Result<i64> {
    // Adding a second also covers tokens that were issued earlier in the current second.
    let now = clock.now_seconds() + 1;
    if text == "now" {
        return Ok(now);
    }
    let time = parse_issued_before(text).map_err(|problem| Error::invalid(format!("--issued-before: {problem}")))?;
    if time > now {
        return Err(Error::invalid(format!(
            "--issued-before: `{text}` is in the future, so every new token would be refused until then: use `now`"
        )));
    }
    Ok(time)
}

/// Returns the `iss` of the issuer with this name. Without a name, returns the `iss` of the only issuer.
fn issuer(name: Option<&str>, auth: &AuthConfig) -> Result<String> {
    let names = || auth.issuers.keys().map(String::as_str);
    let known = || names().collect::<Vec<_>>().join("`, `");
    match name {
        Some(name) => auth.issuers.get(name).map(|issuer| issuer.issuer.clone()).ok_or_else(|| {
            Error::invalid(format!("unknown issuer `{name}`{}; issuers are `{}`", did_you_mean(name, names()), known()))
        }),
        None => match auth.issuers.values().collect::<Vec<_>>()[..] {
            [issuer] => Ok(issuer.issuer.clone()),
            _ => Err(Error::invalid(format!("name the issuer of the tokens with --issuer: one of `{}`", known()))),
        },
    }
}

fn read_token(auth: &AuthConfig) -> Result<String> {
    let mut token = String::new();
    let bytes_max = auth.token_bytes_max as u64 + 2;
    std::io::stdin()
        .take(bytes_max)
        .read_to_string(&mut token)
        .map_err(|error| Error::invalid(format!("cannot read the token from standard input: {error}")))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::super::{Cli, Command};
    use super::*;
    use crate::clock::SECOND;
    use crate::tenancy::testing::auth;

    const NOW: i64 = 1_800_000_000;

    /// Returns the description of the revocation, or the error.
    fn revoke(args: &[&str]) -> Result<String, String> {
        let cli = parse(&[&["revoke"], args].concat()).map_err(|error| error.to_string())?;
        let Cli { command: Command::Revoke(args), .. } = cli else { panic!("{cli:?}") };
        let revocation = args.revocation(&auth(), &Clock::fixed(NOW * SECOND + 7));
        revocation.map(|revocation| revocation.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_determine_the_revocation() {
        let cases: [(&[&str], &str); 7] = [
            (&["--token-id", "t1", "--reason", "lost"], "the token with the id `t1` from `https://issuer.test` (lost)"),
            (&["--issuer", "dev", "--subject", "ann"], "all tokens of the subject `ann` from `https://issuer.test`"),
            (
                &["--subject", "ann", "--issued-before", "now"],
                "all tokens of the subject `ann` issued before 2027-01-15T08:00:01Z from",
            ),
            (
                &["--tenant", "acme", "--issued-before", "2026-01-31T12:00:00+01:00"],
                "all tokens of the tenant `acme` issued before 2026-01-31T11:00:00Z from",
            ),
            (&["--issued-before", "2026-01-31T12:00:00.5Z"], "all tokens issued before 2026-01-31T12:00:01Z from"),
            (
                &["--token", "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwianRpIjoidDcifQ.AA"],
                "the id `t7`",
            ),
            (&["--token", " eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwianRpIjoidDcifQ.AA\n"], "`t7`"),
        ];
        for (args, expected) in cases {
            let given = revoke(args).unwrap_or_else(|error| panic!("{args:?}: {error}"));
            assert!(given.contains(expected), "{args:?}\n  gives {given}\n  not   {expected}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let cases: [(&[&str], &str); 12] = [
            (&[], "required arguments"),
            (&["--reason", "lost"], "required arguments"),
            (&["--tenant", "acme"], "--issued-before"),
            (&["--token-id", "t1", "--subject", "ann"], "cannot be used with"),
            (&["--list", "--subject", "ann"], "cannot be used with"),
            (&["--subject", "ann", "--issuer", "dve"], "unknown issuer `dve`, did you mean `dev`?; issuers are `dev`"),
            (&["--subject", ""], "`subject` must have 1 to 256 bytes"),
            (&["--issued-before", "yesterday"], "`yesterday` is not a time such as 2026-01-31T12:00:00Z"),
            (&["--issued-before", "2027-01-16T00:00:00Z"], "is in the future"),
            (&["--token", "abc"], "it is not a compact JWT of three parts"),
            (&["--token", "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0In0.AA"], "no id (`jti`)"),
            (&["--token", "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL290aGVyIiwianRpIjoidDcifQ.AA"], "is not trusted"),
        ];
        for (args, expected) in cases {
            let error = revoke(args).expect_err(expected);
            assert!(error.contains(expected), "{args:?}\n  gives {error}\n  not   {expected}");
        }
    }
}
