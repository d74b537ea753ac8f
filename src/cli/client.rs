//! The web door of a running server, as commands ask it: where it is, with which token, and how often.

use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::Value;
use url::Url;

use super::ingest;
use crate::error::{Error, Kind, Result};

/// The wait before a busy server is asked again, and how often.
const WAIT: Duration = Duration::from_secs(1);
const ATTEMPTS_MAX: u32 = 20;

/// Where a server answers, who asks, and how the answer is shown.
#[derive(Debug, ClapArgs)]
pub(super) struct ServerClient {
    /// The server's web door
    #[arg(long, global = true, env = "GLASSHOUSE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A token, see below
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
    /// Refuses to ask without a token.
    pub(super) fn check(&self) -> Result<()> {
        if self.token.is_empty() {
            return Err(Error::unauthenticated("no token: give --token, or set GLASSHOUSE_TOKEN"));
        }
        Ok(())
    }

    /// The URL of a path, whatever characters its names have.
    pub(super) fn address(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url> {
        let wrong = || Error::invalid(format!("`{}` is no URL of a web door, as in http://127.0.0.1:8080", self.url));
        let mut url = Url::parse(&self.url).map_err(|_| wrong())?;
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    pub(super) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value> {
        let url = self.address(path, query)?;
        self.answered(|| client().map(|client| client.get(url.clone()))).await
    }

    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value> {
        let url = self.address(path, &[])?;
        self.answered(|| client().map(|client| client.post(url.clone()).json(body))).await
    }

    /// Sends until the server has the time for it.
    pub(super) async fn answered(&self, request: impl Fn() -> Result<reqwest::RequestBuilder>) -> Result<Value> {
        let mut last = Error::unavailable("no answer");
        for _ in 0..ATTEMPTS_MAX {
            let answer = request()?.bearer_auth(&self.token).send().await;
            let answer = answer.map_err(|error| ingest::not_reached(&self.url, error))?;
            if answer.status().is_success() {
                return answer.json().await.map_err(unreadable);
            }
            let again = answer.headers().contains_key("retry-after");
            last = ingest::refusal(answer).await;
            if !again || !matches!(last.kind(), Kind::Limited | Kind::Unavailable) {
                return Err(last);
            }
            tokio::time::sleep(WAIT).await;
        }
        Err(last.at(format!("gave up after {ATTEMPTS_MAX} attempts")))
    }
}

pub(super) fn client() -> Result<reqwest::Client> {
    reqwest::Client::builder()
        .build()
        .map_err(|fault| Error::internal("cannot start an HTTP client").with_source(fault))
}

pub(super) fn unreadable(fault: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("the answer is not readable").with_source(fault)
}
