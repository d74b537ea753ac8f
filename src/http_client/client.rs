//! Sends requests. The client limits the duration and the response size of each attempt, follows redirects, and retries
//! after increasing delays.

use std::error::Error as _;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, StatusCode};
use url::Url;

use super::request::{Credentials, Request, Response};
use super::root_certificates::Roots;
use super::url_rule::{self, Plaintext, redacted};
use crate::config::is_loopback;
use crate::error::{Error, Result};

/// The maximum time for establishing a connection, including name lookup and TLS handshake. It has no effect if the
/// time limit for the whole attempt is shorter.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// The initial allocation for a response body of unknown length, in bytes.
const BODY_BYTES_FIRST: usize = 8 * 1024;
/// The response statuses of temporary failures, after which a later attempt may succeed.
const REFUSED: [StatusCode; 4] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];
/// The response statuses of redirects to the URL in the `location` header.
const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// The settings of a client: the name of its peer, its limits, and its policies for redirects and retries.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The name of the other server in errors, such as `the schema registry`.
    pub(crate) peer: &'static str,
    /// The time limit for one attempt, from connecting to the last byte of the response, including redirects.
    pub(crate) time_max: Duration,
    /// The maximum size of a response body, in bytes.
    pub(crate) body_bytes_max: usize,
    /// The configuration key that sets `body_bytes_max`. `None` if the limit is fixed.
    pub(crate) body_bytes_key: Option<&'static str>,
    /// The configuration key that sets additional certificate authorities. `None` if they cannot be configured.
    pub(crate) ca_key: Option<&'static str>,
    /// The maximum number of redirects that the client follows for a `GET` request. If this number is 0, the client
    /// returns the redirect itself as the response.
    pub(crate) redirects_max: usize,
    /// The hosts to which requests may be sent without TLS.
    pub(crate) plaintext: Plaintext,
    /// The retry policy for idempotent requests.
    pub(crate) retry: Retry,
}

/// The retry policy for idempotent requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    /// The maximum number of attempts for one request, including the first.
    pub(crate) attempts_max: usize,
    /// The pause before the second attempt. Each later pause is twice as long as the previous one. The client extends
    /// each pause by a random duration of up to the length of the pause.
    pub(crate) pause_min: Duration,
    /// The maximum length of a pause, without the random duration.
    pub(crate) pause_max: Duration,
    /// The longest `retry-after` that the client obeys. If the server asks for a longer pause, the client makes no
    /// further attempt.
    pub(crate) retry_after_max: Duration,
    /// Whether the client also repeats a request if the connection was refused, or was closed before a complete
    /// response arrived.
    pub(crate) if_unanswered: bool,
}

impl Retry {
    /// A single attempt without retries.
    pub(crate) const NONE: Self = Self {
        attempts_max: 1,
        pause_min: Duration::ZERO,
        pause_max: Duration::ZERO,
        retry_after_max: Duration::ZERO,
        if_unanswered: false,
    };
    /// A few attempts with short pauses, for callers that wait for the response, or that retry later anyway.
    pub(crate) const BRIEF: Self = Self {
        attempts_max: 3,
        pause_min: Duration::from_millis(100),
        pause_max: Duration::from_millis(400),
        retry_after_max: Duration::from_secs(1),
        if_unanswered: true,
    };
}

/// An HTTP client that sends all requests with the same settings.
#[derive(Debug)]
pub(crate) struct Client {
    settings: Settings,
    /// The client for loopback addresses. This client never uses a proxy.
    direct: reqwest::Client,
    /// The client for all other hosts. This client uses the proxy that the environment variables configure.
    proxied: reqwest::Client,
}

/// The result of an attempt that did not produce a final response.
enum AttemptError {
    /// The server refused the request, but a later attempt may succeed.
    Refused(Response),
    /// The server sent no response, or only part of a response.
    Unanswered(Error),
    /// The attempt failed with an error after which the client never retries.
    Final(Error),
}

impl Client {
    /// Creates a client that trusts these certificate authorities.
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
        let failed = |error: reqwest::Error| Error::internal("cannot create an HTTP client").with_source(error);
        let (direct, proxied) = (build(false).map_err(failed)?, build(true).map_err(failed)?);
        Ok(Self { settings, direct, proxied })
    }

    /// Sends a request, and repeats it if it is idempotent and the retry policy allows it.
    pub(crate) async fn send(&self, request: &Request) -> Result<Response> {
        url_rule::check(&request.url, self.settings.plaintext).map_err(|error| error.at(self.settings.peer))?;
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
                AttemptError::Refused(_) => true,
                AttemptError::Unanswered(_) => if_unanswered,
                AttemptError::Final(_) => false,
            })
            .adjust(|failed, pause| match failed {
                AttemptError::Refused(Response { retry_after: Some(wait), .. }) => {
                    pause.map(|_| *wait).filter(|wait| *wait <= retry_after_max)
                }
                _ => pause,
            })
            .notify(|_, pause| {
                let (peer, url) = (self.settings.peer, redacted(&request.url));
                tracing::debug!(peer, url, ?pause, "retrying a request after a pause");
            });
        match sending.await {
            Ok(response) | Err(AttemptError::Refused(response)) => Ok(response),
            Err(AttemptError::Unanswered(error) | AttemptError::Final(error)) => Err(error),
        }
    }

    async fn attempt(&self, request: &Request) -> Result<Response, AttemptError> {
        let time_max = self.settings.time_max;
        let responding = tokio::time::timeout(time_max, Box::pin(self.follow(request)));
        let timed_out = |_| {
            let what = format!("did not respond within {time_max:?}");
            AttemptError::Final(Error::unavailable(self.of(&request.url, what)))
        };
        let response = responding.await.map_err(timed_out)??;
        if REFUSED.contains(&response.status) { Err(AttemptError::Refused(response)) } else { Ok(response) }
    }

    /// Sends the request once, follows redirects up to the limit, and returns the response.
    async fn follow(&self, request: &Request) -> Result<Response, AttemptError> {
        let Settings { redirects_max, plaintext, .. } = self.settings;
        let (mut url, mut followed, mut has_credentials) = (request.url.clone(), 0, true);
        loop {
            let response = self.send_to(request, &url, has_credentials).await?;
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let location = location.filter(|_| REDIRECTS.contains(&response.status()));
            let Some(location) = location.filter(|_| request.method == Method::GET && redirects_max > 0) else {
                return self.read(response, &url).await;
            };
            let refused =
                |why: String| AttemptError::Final(Error::unavailable(self.of(&url, format!("redirects {why}"))));
            if followed == redirects_max {
                return Err(refused(format!("more than {redirects_max} times")));
            }
            let target = url_rule::target(&url, location, plaintext).map_err(refused)?;
            has_credentials &= url_rule::is_same_origin(&url, &target);
            url = target;
            followed += 1;
        }
    }

    /// Sends the request to `url`, and returns the response before reading its body.
    async fn send_to(
        &self,
        request: &Request,
        url: &Url,
        has_credentials: bool,
    ) -> Result<reqwest::Response, AttemptError> {
        let client = if is_loopback(url) { &self.direct } else { &self.proxied };
        let mut builder = client.request(request.method.clone(), url.clone());
        for (name, value) in &request.headers {
            builder = builder.header(*name, *value);
        }
        builder = match &request.credentials {
            Credentials::Basic { user, password } if has_credentials => builder.basic_auth(user, Some(password)),
            Credentials::Bearer(token) if has_credentials => builder.bearer_auth(token),
            _ => builder,
        };
        if !request.body.is_empty() {
            builder = builder.body(request.body.clone());
        }
        builder.send().await.map_err(|cause| self.unanswered(url, cause))
    }

    /// Reads the body. If the body of a successful response exceeds the limit, returns an error. The body of any other
    /// response is truncated at the limit.
    async fn read(&self, mut response: reqwest::Response, url: &Url) -> Result<Response, AttemptError> {
        let (status, bytes_max) = (response.status(), self.settings.body_bytes_max);
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let length = response.content_length().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if status.is_success() && length.is_some_and(|length| length > bytes_max) {
            return Err(self.too_large(url));
        }
        let mut body = Vec::with_capacity(length.unwrap_or(BODY_BYTES_FIRST).min(bytes_max));
        while let Some(chunk) = response.chunk().await.map_err(|cause| self.unanswered(url, cause))? {
            let remaining = bytes_max - body.len();
            if chunk.len() > remaining && status.is_success() {
                return Err(self.too_large(url));
            }
            let taken = &chunk[..chunk.len().min(remaining)];
            if body.capacity() - body.len() < taken.len() {
                // Double the capacity, as `Vec` does, but never exceed the limit.
                body.reserve_exact(body.len().max(taken.len()).min(remaining));
            }
            body.extend_from_slice(taken);
            if taken.len() < chunk.len() {
                break;
            }
        }
        Ok(Response { status, body: Bytes::from(body), retry_after: seconds.map(Duration::from_secs) })
    }

    fn too_large(&self, url: &Url) -> AttemptError {
        let bytes_max = self.settings.body_bytes_max;
        let limit = self.settings.body_bytes_key.map(|key| format!(" (limit {key})")).unwrap_or_default();
        let what = format!("sent a response of more than {bytes_max} bytes{limit}");
        AttemptError::Final(Error::limited(self.of(url, what)))
    }

    /// Creates the error for a request that got no complete response. The error omits the URL that `cause` contains,
    /// because that URL may contain secrets.
    fn unanswered(&self, url: &Url, cause: reqwest::Error) -> AttemptError {
        let cause = cause.without_url();
        let root_cause = root_cause(&cause);
        if cause.is_builder() {
            return AttemptError::Final(Error::invalid(self.of(url, format!("cannot be requested: {root_cause}"))));
        }
        let what = if root_cause.contains("certificate") {
            let ca_key = self.settings.ca_key.map(|key| format!(", or in `{key}`")).unwrap_or_default();
            format!(
                "cannot be reached ({root_cause}): its certificate authority must be in the system's trust store{ca_key}"
            )
        } else if cause.is_connect() {
            format!("cannot be reached ({root_cause}): check that it is running and that its URL is correct")
        } else {
            format!("closed the connection before the end of its response ({root_cause})")
        };
        AttemptError::Unanswered(Error::unavailable(self.of(url, what)).with_source(cause))
    }

    /// Formats an error message from the name of the server, the URL and `what`.
    fn of(&self, url: &Url, what: String) -> String {
        format!("{} {} {what}", self.settings.peer, redacted(url))
    }
}

/// Returns the message of the root cause, which is the most specific message.
fn root_cause(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}
