//! Runs client commands of the `glasshouse` binary against a server. The process gets the server's address and a token
//! from its environment.

use std::process::{Command, Output};

use crate::server::Server;

/// Runs a client command of the binary against `server`.
pub(crate) fn client(server: &Server, caller: &str, args: &[&str]) -> Output {
    let token = server.facts()["tokens"][caller].as_str().unwrap().to_owned();
    Command::new(env!("CARGO_BIN_EXE_glasshouse"))
        .args(args)
        .env("GLASSHOUSE_URL", format!("http://{}", server.http))
        .env("GLASSHOUSE_FLIGHT_URL", format!("grpc://{}", server.flight))
        .env("GLASSHOUSE_TOKEN", token)
        .output()
        .unwrap()
}

/// Returns whether the command succeeded, and its standard output.
pub(crate) fn outcome(output: &Output) -> (bool, String) {
    (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a statement as `acme` and returns the single value of its result.
pub(crate) fn ask(server: &Server, sql: &str) -> String {
    let output = client(server, "acme", &["query", "--format", "csv", sql]);
    let (succeeded, text) = outcome(&output);
    assert!(succeeded, "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    text.lines().nth(1).unwrap_or_default().to_owned()
}
