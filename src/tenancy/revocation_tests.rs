//! Tests which tokens a revocation covers, how the file is parsed, reloaded and written, and that an existing
//! [`Access`] becomes invalid when its token is revoked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;

use super::revocation_file::{Appended, Reload, RevocationFile, append_revocation, revocations};
use super::revocations::{ActiveRevocations, Revocation, Revocations, RevokedTokens, TokenIdentity, parse};
use super::testing::auth;
use super::{Access, DevelopmentToken, Scope, Verifier};
use crate::clock::{Clock, SECOND};
use crate::config::AuthConfig;
use crate::error::Kind;
use crate::telemetry::Metrics;

const ISSUER: &str = "https://issuer.test";
/// 2027-01-15T08:00:00Z.
const NOW: i64 = 1_800_000_000;
/// The time between two reads of the file.
const POLL: Duration = Duration::from_millis(5);

fn issuers() -> Vec<String> {
    vec![ISSUER.to_owned(), "https://other.test".to_owned()]
}

/// Returns a file with one revocation of the test issuer for each element of `entries`.
fn file(entries: &[&str]) -> String {
    entries.iter().map(|entry| format!("[[revocations]]\nissuer = \"{ISSUER}\"\n{entry}\n")).collect()
}

/// Returns the test configuration with this file for revocations.
fn auth_with(path: &Path) -> AuthConfig {
    AuthConfig { revocations_file: Some(path.to_owned()), ..auth() }
}

fn id_of(token_id: &str) -> Revocation {
    Revocation { issuer: ISSUER.to_owned(), tokens: RevokedTokens::TokenId(token_id.to_owned()), reason: None }
}

#[test]
fn a_revocation_covers_exactly_its_tokens() {
    let token =
        TokenIdentity { issuer: ISSUER, subject: "ann", token_id: "t1", tenant: Some("acme"), issued: Some(NOW) };
    let cases = [
        ("token_id = \"t1\"", token, true),
        ("token_id = \"t1\"", TokenIdentity { token_id: "t2", ..token }, false),
        ("token_id = \"t1\"", TokenIdentity { token_id: "", ..token }, false),
        ("token_id = \"t1\"", TokenIdentity { issuer: "https://other.test", ..token }, false),
        ("subject = \"ann\"", token, true),
        ("subject = \"ann\"", TokenIdentity { issued: Some(i64::MAX - 1), tenant: None, ..token }, true),
        ("subject = \"ann\"", TokenIdentity { subject: "bob", ..token }, false),
        ("subject = \"ann\"\nissued_before = 2027-01-15T08:00:01Z", token, true),
        ("subject = \"ann\"\nissued_before = 2027-01-15T08:00:00Z", token, false),
        ("subject = \"ann\"\nissued_before = 2000-01-01T00:00:00Z", TokenIdentity { issued: None, ..token }, true),
        ("issued_before = 2027-01-15T08:00:01Z", token, true),
        ("issued_before = 2027-01-15T09:00:00.5+01:00", token, true),
        ("issued_before = \"2027-01-15T08:00:01Z\"", TokenIdentity { tenant: None, ..token }, true),
        ("issued_before = 2027-01-15T08:00:00Z", token, false),
        ("issued_before = 2027-01-15T08:00:00Z", TokenIdentity { issued: None, ..token }, true),
        ("tenant = \"acme\"\nissued_before = 2027-01-15T08:00:01Z", token, true),
        ("tenant = \"acme\"\nissued_before = 2027-01-15T08:00:00Z", token, false),
        (
            "tenant = \"acme\"\nissued_before = 2027-01-15T08:00:01Z",
            TokenIdentity { tenant: Some("b"), ..token },
            false,
        ),
        ("tenant = \"acme\"\nissued_before = 2027-01-15T08:00:01Z", TokenIdentity { tenant: None, ..token }, false),
    ];
    for (entry, token, is_revoked) in cases {
        let list = parse(&file(&[entry]), &issuers()).unwrap_or_else(|error| panic!("{entry}: {error}"));
        let active = ActiveRevocations::new(Revocations::new(&list));
        assert_eq!(active.covers(token), is_revoked, "{entry}: {token:?}");
        let written: String = list.iter().map(Revocation::to_toml).collect();
        assert_eq!(parse(&written, &issuers()).unwrap(), list, "{written}");
    }
    assert!(!ActiveRevocations::new(Revocations::default()).covers(TokenIdentity { issued: None, ..token }));
}

#[test]
fn an_invalid_file_is_refused_with_the_line_and_the_fix() {
    let entry = |lines: &str| format!("# Lost laptops.\n\n[[revocations]]\nissuer = \"{ISSUER}\"\n{lines}\n");
    let cases = [
        ("revocations = 1".to_owned(), "line 1: invalid type"),
        ("revoked = []".to_owned(), "line 1: unknown field `revoked`"),
        ("\n[[revocations]".to_owned(), "line 2: "),
        ("[[revocations]]\ntoken_id = \"t\"".to_owned(), "line 1: missing field `issuer`"),
        (entry("tokenid = \"t\""), "line 5: unknown field `tokenid`, expected one of `issuer`, `token_id`"),
        (entry(""), "line 3: nothing is revoked: add `token_id`, `subject` or `issued_before`"),
        (entry("tenant = \"acme\""), "line 3: `tenant` needs `issued_before`"),
        (entry("tenant = \"\"\nissued_before = 2027-01-15T08:00:00Z"), "line 3: `` is not a valid tenant id"),
        (entry("token_id = \"t\"\nsubject = \"s\""), "line 3: `token_id` cannot be combined with another key"),
        (entry("token_id = \"\""), "line 3: `token_id` must have 1 to 256 bytes"),
        (entry("subject = \"a\\u0000\""), "line 3: `subject` must have 1 to 256 bytes and no control characters"),
        (entry("issued_before = 1800000000"), "line 5: `1800000000` is not a time such as 2026-01-31T12:00:00Z"),
        (entry("issued_before = 2027-01-15T08:00:00"), "line 5: `2027-01-15T08:00:00` is not a time"),
        (entry("issued_before = \"yesterday\""), "line 5: `yesterday` is not a time"),
        (
            file(&["token_id = \"t\""]).replace("issuer.test", "isuer.test"),
            "line 1: unknown issuer `https://isuer.test`, did you mean `https://issuer.test`?; the trusted issuers are \
             `https://issuer.test`, `https://other.test`",
        ),
        (file(&["", "subject = \"ann\"", ""]), "line 7: nothing is revoked"),
    ];
    for (text, expected) in cases {
        let error = parse(&text, &issuers()).expect_err(expected);
        assert!(error.message().contains(expected), "{text}\n  gives {error}\n  not   {expected}");
    }
}

#[test]
fn a_changed_file_is_applied_and_an_invalid_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revocations.toml");
    let auth = auth_with(&path);
    let error = RevocationFile::open(&path, &auth).unwrap_err();
    assert!(error.message().contains("does not exist: create an empty file with `touch "), "{error}");
    fs::write(&path, "").unwrap();
    let (watched, none) = RevocationFile::open(&path, &auth).unwrap();
    let active = ActiveRevocations::new(none);
    let (one, two) = (file(&["token_id = \"t1\""]), file(&["token_id = \"t1\"", "token_id = \"t2\""]));
    let other = file(&["token_id = \"t1\"", "token_id = \"t3\""]);
    // Each step writes the file, and reads it again as often as there are results. The last number is the number of
    // active revocations.
    let steps: [(&str, &[Reload], usize); 9] = [
        ("", &[Reload::Unchanged], 0),
        (&one, &[Reload::Replaced, Reload::Unchanged], 1),
        (&two, &[Reload::Replaced], 2),
        ("(removed)", &[Reload::Failed, Reload::Failed], 2),
        ("[[revocations]]", &[Reload::Failed], 2),
        (&two, &[Reload::Unchanged], 2),
        // The file has been truncated, and is then written.
        ("", &[Reload::Unconfirmed], 2),
        (&other, &[Reload::Unconfirmed, Reload::Replaced], 2),
        (&one, &[Reload::Unconfirmed, Reload::Replaced, Reload::Unchanged], 1),
    ];
    for (index, (text, results, count)) in steps.into_iter().enumerate() {
        match text {
            "(removed)" => fs::remove_file(&path).unwrap(),
            text => fs::write(&path, text).unwrap(),
        }
        for expected in results {
            assert_eq!(watched.reload(&active), *expected, "step {index}");
        }
        assert_eq!(active.len(), count, "step {index}");
    }
}

#[test]
fn the_command_adds_revocations_and_keeps_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revocations.toml");
    let auth = auth_with(&path);
    assert_eq!(revocations(&auth).unwrap(), []);
    assert_eq!(append_revocation(&auth, &id_of("t1")).unwrap(), Appended::Added);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# Revoked tokens."), "{text}");
    fs::write(&path, format!("{text}# a comment without a line break")).unwrap();
    assert_eq!(append_revocation(&auth, &id_of("t \"2\"")).unwrap(), Appended::Added);
    assert_eq!(append_revocation(&auth, &id_of("t1")).unwrap(), Appended::AlreadyRevoked);
    assert_eq!(revocations(&auth).unwrap(), [id_of("t1"), id_of("t \"2\"")]);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("# a comment without a line break\n\n[[revocations]]\n"), "{text}");

    let subject = |issued_before| Revocation {
        tokens: RevokedTokens::Subject { subject: "ann".to_owned(), issued_before },
        ..id_of("")
    };
    for (revocation, expected) in [
        (subject(Some(NOW)), Appended::Added),
        (subject(Some(NOW - 1)), Appended::AlreadyRevoked),
        (subject(Some(NOW + 1)), Appended::Added),
        (subject(None), Appended::Added),
        (subject(Some(NOW + 2)), Appended::AlreadyRevoked),
    ] {
        assert_eq!(append_revocation(&auth, &revocation).unwrap(), expected, "{revocation}");
    }

    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["revocations.toml"], "no other files are left");
    for (text, expected) in [("[[revocations]]", "missing field `issuer`"), ("revocations = []\n", "line 3: ")] {
        fs::write(&path, text).unwrap();
        let error = append_revocation(&auth, &id_of("t9")).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "an invalid file is not changed");
    }
    let error = append_revocation(&super::testing::auth(), &id_of("t1")).unwrap_err();
    assert!(error.message().contains("set auth.revocations_file"), "{error}");
}

#[test]
fn simultaneous_commands_lose_no_revocation() {
    let folder = tempfile::tempdir().unwrap();
    let auth = auth_with(&folder.path().join("revocations.toml"));
    std::thread::scope(|scope| {
        for index in 0..8 {
            let auth = &auth;
            scope.spawn(move || append_revocation(auth, &id_of(&format!("t{index}"))).unwrap());
        }
    });
    assert_eq!(revocations(&auth).unwrap().len(), 8);
}

/// Returns a new token and its access.
async fn verified(verifier: &Verifier, clock: &Clock) -> (String, Access) {
    let token = DevelopmentToken {
        issuer: String::new(),
        tenant: Some("acme".to_owned()),
        subject: "ann".to_owned(),
        scopes: vec![Scope::Read],
        age: Duration::from_secs(600),
        claims: Map::new(),
    };
    let token = token.sign(&auth(), clock).unwrap();
    let access = verifier.verify(&token).await.unwrap();
    (token, access)
}

#[tokio::test]
async fn a_verified_token_is_refused_after_its_revocation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revocations.toml");
    fs::write(&path, "").unwrap();
    let clock = Clock::fixed(NOW * SECOND);
    let verifier = Arc::new(Verifier::new(&auth_with(&path), &BTreeMap::new(), clock.clone()).unwrap());
    let ((revoked, access), (_, other)) = (verified(&verifier, &clock).await, verified(&verifier, &clock).await);
    assert!(access.check_valid(clock.now()).is_ok());

    let metrics = Arc::new(Metrics::default());
    let (stop, changed) = (tokio_util::sync::CancellationToken::new(), Arc::new(tokio::sync::Notify::new()));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn({
        let (verifier, metrics, stop, changed) = (verifier.clone(), metrics.clone(), stop.clone(), changed.clone());
        async move { verifier.follow_revocations(POLL, &metrics, &stop, || changed.notify_one()).await }
    });
    let waiting = access.unless_revoked(std::future::pending::<crate::error::Result<()>>());
    append_revocation(&auth_with(&path), &id_of(access.identity().2)).unwrap();
    let error = waiting.await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Unauthenticated, "the token has been revoked: get a new one"));
    changed.notified().await;
    assert_eq!(access.check_valid(clock.now()).unwrap_err().kind(), Kind::Unauthenticated);
    assert_eq!(verifier.verify(&revoked).await.unwrap_err().message(), error.message());
    assert!(other.check_valid(clock.now()).is_ok(), "another token of the same subject is still valid");
    assert_eq!(verifier.revocation_count(), Some(1));

    fs::remove_file(&path).unwrap();
    let mut polls = tokio::time::interval(POLL);
    while !metrics.render().contains("glasshouse_revocations_file_invalid 1") {
        polls.tick().await;
    }
    assert!(access.is_revoked(), "the last valid revocations stay active");
    assert!(metrics.render().contains("glasshouse_revocations 1"), "{}", metrics.render());
    stop.cancel();
    tasks.join_all().await;
}
