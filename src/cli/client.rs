//! The HTTP client that commands use for the API of a running server: its URL, token and retries.

use std::time::Duration;

use clap::Args as ClapArgs;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::outbound::{Client, Plaintext, Request, Response, Retry, Roots, Settings};

/// The time limit for one response, enough for a large ingest request on a busy server.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);
/// The maximum size of one response, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// How many redirects a command follows.
const REDIRECTS_MAX: usize = 5;

/// How to retry a request that the server refuses because of load.
pub(super) const RETRY: Retry = Retry {
    attempts_max: 20,
    pause_min: Duration::from_millis(250),
    pause_max: Duration::from_millis(500),
    retry_after_max: ANSWER_TIME_MAX,
    if_unanswered: false,
};

/// The server's URL, the token, and the output format.
#[derive(Debug, ClapArgs)]
pub(super) struct ServerClient {
    /// The server's HTTP endpoint
    #[arg(long, global = true, env = "GLASSHOUSE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A token with the scopes named below
    #[arg(
        long,
        global = true,
        env = "GLASSHOUSE_TOKEN",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    token: String,
    /// Print the server's JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl ServerClient {
    /// Fails if there is no token.
    pub(super) fn check(&self) -> Result<()> {
        if self.token.is_empty() {
            return Err(Error::unauthenticated("no token: use --token, or set GLASSHOUSE_TOKEN"));
        }
        Ok(())
    }

    /// The URL of a path, with its names percent-encoded.
    pub(super) fn address(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url> {
        let mut url = address(&self.url, path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value> {
        self.answer(Request::get(self.address(path, query)?)).await
    }

    /// Sends a body. It may be sent more than once: the requests of commands are idempotent.
    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value> {
        let url = self.address(path, &[])?;
        self.answer(Request::post(url, "application/json", body.to_string()).idempotent()).await
    }

    /// The response to a request with our token.
    pub(super) async fn answer(&self, request: Request) -> Result<Value> {
        let answer = send(&client(RETRY)?, &request.bearer(&self.token)).await?;
        serde_json::from_slice(&answer.body).map_err(unreadable)
    }
}

/// The body of an error response.
#[derive(Debug, Deserialize)]
struct Problem {
    error: ProblemBody,
}

#[derive(Debug, Deserialize)]
struct ProblemBody {
    message: String,
}

/// A client for a server of the user's choice, with or without TLS.
pub(super) fn client(retry: Retry) -> Result<Client> {
    client_within(ANSWER_TIME_MAX, retry)
}

/// The same with another time limit for one response.
pub(super) fn client_within(time_max: Duration, retry: Retry) -> Result<Client> {
    let settings = Settings {
        peer: "the server",
        time_max,
        body_bytes_max: ANSWER_BYTES_MAX,
        body_bytes_key: None,
        ca_key: None,
        redirects_max: REDIRECTS_MAX,
        plaintext: Plaintext::Anywhere,
        retry,
    };
    Client::new(settings, &Roots::system())
}

/// The URL of a path below a server's URL, with its names percent-encoded.
pub(super) fn address(base: &str, path: &[&str]) -> Result<Url> {
    let wrong = || Error::invalid("the server's URL is not valid; expected a URL like http://127.0.0.1:8080");
    let mut url = Url::parse(base).map_err(|_| wrong())?;
    url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(path);
    Ok(url)
}

/// Sends a request; an error response becomes an error.
pub(super) async fn send(client: &Client, request: &Request) -> Result<Response> {
    let answer = client.send(request).await?;
    if answer.status.is_success() { Ok(answer) } else { Err(refusal(&answer)) }
}

pub(super) fn unreadable(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("the server's response is not readable").with_source(fault)
}

/// The error that a refusing response represents.
fn refusal(answer: &Response) -> Error {
    let status = answer.status.as_u16();
    let message = match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) => problem.error.message,
        Err(_) => format!("the server answered {status}"),
    };
    Error::new(kind_of(status), message)
}

fn kind_of(status: u16) -> Kind {
    match status {
        401 => Kind::Unauthenticated,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        429 => Kind::Limited,
        502..=504 => Kind::Unavailable,
        400..=499 => Kind::Invalid,
        _ => Kind::Internal,
    }
}
