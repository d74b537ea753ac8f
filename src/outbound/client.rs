//! The client: attempts, their time and size limits, and the pauses between them.

use std::error::Error as _;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, StatusCode};
use url::Url;

use super::message::{Credentials, Request, Response};
use super::roots::Roots;
use super::rule::{self, Plaintext, redacted};
use crate::config::is_loopback;
use crate::error::{Error, Result};

/// The time limit for a connection, including name lookup and TLS handshake, if the limit for an attempt is longer.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// The first allocation for a body of unknown length, in bytes.
const BODY_BYTES_FIRST: usize = 8 * 1024;
/// Statuses of a server that refuses a request temporarily.
const REFUSED: [StatusCode; 4] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];
/// Statuses whose `location` is the target of a redirect.
const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// The limits of a client.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The name of the other side in errors, such as `the schema registry`.
    pub(crate) peer: &'static str,
    /// The time limit for one attempt, from connecting to the last byte, including redirects.
    pub(crate) time_max: Duration,
    /// The maximum size of a response body, in bytes.
    pub(crate) body_bytes_max: usize,
    /// The configuration key of that limit, if it has one.
    pub(crate) body_bytes_key: Option<&'static str>,
    /// The configuration key for additional certificate authorities, if there is one.
    pub(crate) ca_key: Option<&'static str>,
    /// How many redirects a `GET` follows. With 0, a redirect is returned as the response.
    pub(crate) redirects_max: usize,
    /// Where requests may go without TLS.
    pub(crate) plaintext: Plaintext,
    /// How an idempotent request is repeated.
    pub(crate) retry: Retry,
}

/// The retry policy of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// The maximum number of attempts for one request, including the first.
    pub(crate) attempts_max: usize,
    /// The first pause. Each further pause is twice as long. A random part of up to the same length is added to each.
    pub(crate) pause_min: Duration,
    /// The longest pause, without the random part.
    pub(crate) pause_max: Duration,
    /// The longest `retry-after` that is honored. If the peer asks for a longer pause, the attempts end.
    pub(crate) retry_after_max: Duration,
    /// Whether a request without a response is repeated as well: the connection was refused or broke.
    pub(crate) if_unanswered: bool,
}

impl Retry {
    /// A single attempt.
    pub(crate) const NONE: Self = Self {
        attempts_max: 1,
        pause_min: Duration::ZERO,
        pause_max: Duration::ZERO,
        retry_after_max: Duration::ZERO,
        if_unanswered: false,
    };
    /// A few attempts within a second, for a caller that waits and has its own way to try again later.
    pub(crate) const BRIEF: Self = Self {
        attempts_max: 3,
        pause_min: Duration::from_millis(100),
        pause_max: Duration::from_millis(400),
        retry_after_max: Duration::from_secs(1),
        if_unanswered: true,
    };
}

/// Sends requests within its settings.
#[derive(Debug)]
pub(crate) struct Client {
    settings: Settings,
    /// For this machine: never through a proxy.
    direct: reqwest::Client,
    /// For all others: through the proxy that the environment names, if any.
    proxied: reqwest::Client,
}

/// Why an attempt gave no final response.
enum Failed {
    /// The peer refuses the request temporarily.
    Refused(Response),
    /// No response arrived, or only a part of one.
    Unanswered(Error),
    /// Another attempt would fail in the same way.
    Final(Error),
}

impl Client {
    /// A client that trusts these authorities.
    pub(crate) fn new(settings: Settings, roots: &Roots) -> Result<Self> {
        let build = |may_use_proxy: bool| {
            let mut client = reqwest::Client::builder()
                .redirect(Policy::none())
                .connect_timeout(settings.time_max.min(CONNECT_TIME_MAX))
                .tls_built_in_root_certs(false);
            if !may_use_proxy {
                client = client.no_proxy();
            }
            for certificate in roots.iter() {
                client = client.add_root_certificate(Certificate::from_der(certificate)?);
            }
            client.build()
        };
        let broken = |error: reqwest::Error| Error::internal("cannot make an HTTP client").with_source(error);
        let (direct, proxied) = (build(false).map_err(broken)?, build(true).map_err(broken)?);
        Ok(Self { settings, direct, proxied })
    }

    /// Sends a request, and repeats it while that is allowed and may help.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response> {
        rule::check(&request.url, self.settings.plaintext).map_err(|error| error.at(self.settings.peer))?;
        let Retry { attempts_max, pause_min, pause_max, retry_after_max, if_unanswered } = self.settings.retry;
        let attempts_max = if request.is_idempotent { attempts_max } else { 1 };
        let pauses = ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(pause_min)
            .with_max_delay(pause_max)
            .with_max_times(attempts_max.saturating_sub(1));
        let sending = (|| self.attempt(request))
            .retry(pauses)
            .when(|failed| match failed {
                Failed::Refused(_) => true,
                Failed::Unanswered(_) => if_unanswered,
                Failed::Final(_) => false,
            })
            .adjust(|failed, pause| match failed {
                Failed::Refused(Response { retry_after: Some(wait), .. }) => {
                    pause.map(|_| *wait).filter(|wait| *wait <= retry_after_max)
                }
                _ => pause,
            })
            .notify(|_, pause| {
                let (peer, url) = (self.settings.peer, redacted(&request.url));
                tracing::debug!(peer, url, ?pause, "retrying a request after a pause");
            });
        match sending.await {
            Ok(response) | Err(Failed::Refused(response)) => Ok(response),
            Err(Failed::Unanswered(error) | Failed::Final(error)) => Err(error),
        }
    }

    async fn attempt(&self, request: &Request) -> Result<Response, Failed> {
        let time_max = self.settings.time_max;
        let answering = tokio::time::timeout(time_max, Box::pin(self.follow(request)));
        let late = |_| {
            let what = format!("does not answer within {time_max:?}");
            Failed::Final(Error::unavailable(self.of(&request.url, what)))
        };
        let response = answering.await.map_err(late)??;
        if REFUSED.contains(&response.status) { Err(Failed::Refused(response)) } else { Ok(response) }
    }

    /// The response to one request, after following the allowed number of redirects.
    async fn follow(&self, request: &Request) -> Result<Response, Failed> {
        let Settings { redirects_max, plaintext, .. } = self.settings;
        let (mut url, mut followed, mut has_credentials) = (request.url.clone(), 0, true);
        loop {
            let answer = self.ask(request, &url, has_credentials).await?;
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let location = location.filter(|_| REDIRECTS.contains(&answer.status()));
            let Some(location) = location.filter(|_| request.method == Method::GET && redirects_max > 0) else {
                return self.read(answer, &url).await;
            };
            let refused = |why: String| Failed::Final(Error::unavailable(self.of(&url, format!("redirects {why}"))));
            if followed == redirects_max {
                return Err(refused(format!("more than {redirects_max} times")));
            }
            let target = rule::target(&url, location, plaintext).map_err(refused)?;
            has_credentials &= rule::is_same_origin(&url, &target);
            url = target;
            followed += 1;
        }
    }

    /// Sends the request to this URL, and returns the head of the response.
    async fn ask(&self, request: &Request, url: &Url, has_credentials: bool) -> Result<reqwest::Response, Failed> {
        let client = if is_loopback(url) { &self.direct } else { &self.proxied };
        let mut asking = client.request(request.method.clone(), url.clone());
        for (name, value) in &request.headers {
            asking = asking.header(*name, *value);
        }
        asking = match &request.credentials {
            Credentials::Basic { user, password } if has_credentials => asking.basic_auth(user, Some(password)),
            Credentials::Bearer(token) if has_credentials => asking.bearer_auth(token),
            _ => asking,
        };
        if !request.body.is_empty() {
            asking = asking.body(request.body.clone());
        }
        asking.send().await.map_err(|cause| self.unanswered(url, cause))
    }

    /// Reads the body, up to the limit. The body of an unsuccessful response is truncated at the limit.
    async fn read(&self, mut answer: reqwest::Response, url: &Url) -> Result<Response, Failed> {
        let (status, bytes_max) = (answer.status(), self.settings.body_bytes_max);
        let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let length = answer.content_length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if status.is_success() && length.is_some_and(|length| length > bytes_max) {
            return Err(self.too_large(url));
        }
        let mut body = Vec::with_capacity(length.unwrap_or(BODY_BYTES_FIRST).min(bytes_max));
        while let Some(chunk) = answer.chunk().await.map_err(|cause| self.unanswered(url, cause))? {
            let room = bytes_max - body.len();
            if chunk.len() > room && status.is_success() {
                return Err(self.too_large(url));
            }
            let taken = &chunk[..chunk.len().min(room)];
            if body.capacity() - body.len() < taken.len() {
                // Doubles like a growing vector, but never beyond the limit.
                body.reserve_exact(body.len().max(taken.len()).min(room));
            }
            body.extend_from_slice(taken);
            if taken.len() < chunk.len() {
                break;
            }
        }
        Ok(Response { status, body: Bytes::from(body), retry_after: seconds.map(Duration::from_secs) })
    }

    fn too_large(&self, url: &Url) -> Failed {
        let bytes_max = self.settings.body_bytes_max;
        let limit = self.settings.body_bytes_key.map(|key| format!(" (limit {key})")).unwrap_or_default();
        let what = format!("answers with more than {bytes_max} bytes{limit}");
        Failed::Final(Error::limited(self.of(url, what)))
    }

    /// The error for a request without a response. Its cause is shown without the URL, which may contain secrets.
    fn unanswered(&self, url: &Url, cause: reqwest::Error) -> Failed {
        let cause = cause.without_url();
        let innermost = innermost(&cause);
        if cause.is_builder() {
            return Failed::Final(Error::invalid(self.of(url, format!("cannot be requested: {innermost}"))));
        }
        let what = if innermost.contains("certificate") {
            let ca_key = self.settings.ca_key.map(|key| format!(", or in `{key}`")).unwrap_or_default();
            format!(
                "cannot be reached ({innermost}): its certificate authority must be in the system's trust store{ca_key}"
            )
        } else if cause.is_connect() {
            format!("cannot be reached ({innermost}): check that it is running and that its URL is correct")
        } else {
            format!("closed the connection before the end of its response ({innermost})")
        };
        Failed::Unanswered(Error::unavailable(self.of(url, what)).with_source(cause))
    }

    /// An error text: the peer, its URL, and `what`.
    fn of(&self, url: &Url, what: String) -> String {
        format!("{} {} {what}", self.settings.peer, redacted(url))
    }
}

/// The text of the root cause, which is the most specific one.
fn innermost(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}
