//! Checks that the ports, environment variables, health check and stop timeout of the container image and the systemd
//! unit match the program.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use glasshouse::config::{Config, FlightConfig, HttpConfig};

use crate::server::{Server, Setup};

const CONTAINERFILE: &str = include_str!("../../packaging/Containerfile");
const GUIDE: &str = include_str!("../../packaging/README.md");
const UNIT: &str = include_str!("../../packaging/glasshouse.service");
const REFERENCE: &str = include_str!("../../glasshouse.toml");

/// Runs `glasshouse health`, and returns its exit code and output.
fn health(url: &str, more: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_glasshouse")).args(["health", "--url", url]).args(more).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_health_check_reports_whether_the_server_is_ready() {
    let server = Server::start(&Setup::default());
    let url = format!("http://{}", server.http);
    assert_eq!(health(&url, &[]), (Some(0), "the server is ready\n".to_owned()));
    assert_eq!(health(&format!("{url}/"), &["--live"]), (Some(0), "the server responds\n".to_owned()));
    let (code, text) = health(&format!("{url}/v1"), &[]);
    assert!(code == Some(5) && text.contains("the server is not ready") && text.contains("404"), "{code:?} {text}");
    assert!(server.stop());
    let (code, text) = health(&url, &[]);
    assert!(code == Some(5) && text.contains("cannot be reached"), "{code:?} {text}");
}

#[test]
fn the_image_exposes_the_default_ports() {
    let ports = [HttpConfig::default().listen.port(), FlightConfig::default().listen.port()];
    assert!(CONTAINERFILE.contains(&format!("\nEXPOSE {} {}\n", ports[0], ports[1])));
    assert!(CONTAINERFILE.contains("\nHEALTHCHECK") && CONTAINERFILE.contains("CMD [\"glasshouse\", \"health\"]"));
    assert!(CONTAINERFILE.contains("\nUSER 10001:10001\n"));
    // The variables from the image and those from the guide must together form a valid configuration.
    let settings = |text: &str| -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
        let ours = pairs.filter(|(key, _)| key.starts_with("GLASSHOUSE__"));
        ours.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let mut variables = settings(CONTAINERFILE);
    assert_eq!(variables.len(), 2, "{variables:?}");
    let run = GUIDE.split("podman run").nth(1).unwrap().split("```").next().unwrap();
    variables.extend(settings(run));
    assert_eq!(variables.len(), 6, "{variables:?}");
    // The guide contains a command that generates this secret, not the secret itself.
    variables.insert("GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET".to_owned(), "a secret of the operator's own".repeat(2));
    let config = Config::parse(REFERENCE, "glasshouse.toml", Path::new("/etc/glasshouse"), variables.into_iter());
    let config = config.unwrap_or_else(|faults| panic!("{faults}"));
    for (address, port) in [config.http.listen, config.flight.listen].into_iter().zip(ports) {
        assert!(address.ip().is_unspecified() && address.port() == port, "{address}");
    }
}

#[test]
fn systemd_waits_longer_than_the_server_takes_to_stop() {
    let seconds = UNIT.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.strip_suffix('s'));
    let seconds: u64 = seconds.unwrap().parse().unwrap();
    // The server stops within 25 s, the default of `shutdown.time_max`.
    assert!(seconds >= 30, "{seconds} s");
    assert!(
        !UNIT.lines().any(|line| line.starts_with("ExecReload=")),
        "the server reads its configuration only at startup"
    );
}
