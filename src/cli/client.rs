//! The HTTP client that many commands use to call the API of a running server.

use std::time::Duration;

use clap::Args as ClapArgs;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::error::{Error, Kind, Result};
use crate::http_client::{Client, Plaintext, Request, Response, Retry, Roots, Settings};

/// The time limit for one response. It is long enough for a large ingest request to a busy server.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(300);
/// The maximum size of one response, in bytes.
const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// The maximum number of redirects that a command follows.
const REDIRECTS_MAX: usize = 5;

/// The retry policy for requests that the server refuses because of load.
pub(super) const RETRY: Retry = Retry {
    attempts_max: 20,
    pause_min: Duration::from_millis(250),
    pause_max: Duration::from_millis(500),
    retry_after_max: RESPONSE_TIME_MAX,
    if_unanswered: false,
};

/// The options for the server's URL, the token and the output format.
#[derive(Debug, ClapArgs)]
pub(super) struct ServerClient {
    /// The server's HTTP endpoint
    #[arg(long, global = true, env = "GLASSHOUSE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A token with the required scopes
    #[arg(
        long,
        global = true,
        env = "GLASSHOUSE_TOKEN",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    token: String,
    /// Print the JSON that the server returns
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl ServerClient {
    /// Fails with `Unauthenticated` if no token is given.
    pub(super) fn check(&self) -> Result<()> {
        if self.token.is_empty() {
            return Err(Error::unauthenticated("no token: use --token, or set GLASSHOUSE_TOKEN"));
        }
        Ok(())
    }

    /// Returns the URL of a path on the server. The path segments and the query are percent-encoded.
    pub(super) fn address(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url> {
        let mut url = address(&self.url, path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value> {
        self.send(Request::get(self.address(path, query)?)).await
    }

    /// Sends a `POST` request. The client may retry the request, because the requests of all commands are idempotent.
    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value> {
        let url = self.address(path, &[])?;
        self.send(Request::post(url, "application/json", body.to_string()).idempotent()).await
    }

    /// Sends a request with the token, and returns the body of the response.
    pub(super) async fn send(&self, request: Request) -> Result<Value> {
        let response = send(&client(RETRY)?, &request.bearer(&self.token)).await?;
        serde_json::from_slice(&response.body).map_err(unreadable)
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

/// Creates a client that accepts `https://` and `http://` URLs.
pub(super) fn client(retry: Retry) -> Result<Client> {
    client_within(RESPONSE_TIME_MAX, retry)
}

/// Creates a client with the given time limit for one response.
pub(super) fn client_within(time_max: Duration, retry: Retry) -> Result<Client> {
    let settings = Settings {
        peer: "the server",
        time_max,
        body_bytes_max: RESPONSE_BYTES_MAX,
        body_bytes_key: None,
        ca_key: None,
        redirects_max: REDIRECTS_MAX,
        plaintext: Plaintext::Anywhere,
        retry,
    };
    Client::new(settings, &Roots::system())
}

/// Appends a path to a server's URL. The path segments are percent-encoded.
pub(super) fn address(base: &str, path: &[&str]) -> Result<Url> {
    let wrong = || Error::invalid("the server's URL is not valid: use a URL such as http://127.0.0.1:8080");
    let mut url = Url::parse(base).map_err(|_| wrong())?;
    url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(path);
    Ok(url)
}

/// Sends a request, and converts an error response to an error.
pub(super) async fn send(client: &Client, request: &Request) -> Result<Response> {
    let response = client.send(request).await?;
    if response.status.is_success() { Ok(response) } else { Err(response_error(&response)) }
}

pub(super) fn unreadable(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("cannot read the server's response").with_source(cause)
}

/// Converts an error response of the server to an [`Error`].
fn response_error(response: &Response) -> Error {
    let status = response.status.as_u16();
    let message = match serde_json::from_slice::<Problem>(&response.body) {
        Ok(problem) => problem.error.message,
        Err(_) => format!("the server returned the status {status}"),
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
