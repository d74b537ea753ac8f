//! The OAuth tokens with which a source logs in to its brokers.
//!
//! [`OauthTokens`] fetches an [`OauthToken`] for the SASL mechanism `OAUTHBEARER`. The section `[sources.NAME.oauth]`
//! configures the identity provider. The request uses the `client_credentials` grant (RFC 6749, section 4.4) and HTTP
//! basic authentication (section 2.3.1).
//!
//! **Invariant:** each fetch has a time limit and a size limit, follows no redirects, and is not retried.
//! **Invariant:** no log or error message contains the client secret or a token.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::clock::Clock;
use crate::config::OauthConfig;
use crate::error::{Error, Result};
use crate::http_client::{Client, Plaintext, Request, Retry, Roots, Settings, StatusCode, parse_url, redacted};

/// The time limit of one fetch, from opening the connection to receiving the last byte of the response.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// The size limit of a response, in bytes.
const RESPONSE_BYTES_MAX: usize = 256 * 1024;
/// The number of characters after which the provider's error text is truncated in error messages.
const ERROR_TEXT_MAX: usize = 300;
/// The minimum lifetime of a token, in seconds. With shorter lifetimes, the source would fetch new tokens almost
/// continuously.
const LIFETIME_MIN: i64 = 10;
/// The assumed lifetime of a token without `expires_in`, in seconds. The client fetches the next token when four fifths
/// of the lifetime have passed.
const LIFETIME_DEFAULT: i64 = 300;
/// The maximum lifetime of a token, in seconds. A greater `expires_in` is reduced to this maximum.
const LIFETIME_MAX: i64 = 7 * 24 * 3_600;

/// Fetches the tokens for one source.
pub(super) struct OauthTokens {
    url: Url,
    client: Client,
    id: String,
    secret: String,
    form: String,
    clock: Clock,
}

/// A token with which a source logs in to its brokers.
pub(super) struct OauthToken {
    pub(super) text: String,
    /// The id of the OAuth client to which the token was issued. The client library logs this id.
    pub(super) principal: String,
    /// When the token expires, in milliseconds since 1970.
    pub(super) expires: i64,
}

/// A successful response from the token endpoint.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Value>,
}

/// An error response from the token endpoint (RFC 6749, section 5.2).
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenErrorResponse {
    error: String,
    error_description: String,
}

/// Formats only the client id and the URL, and omits the secret.
impl fmt::Debug for OauthTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OauthTokens({} from {})", self.id, redacted(&self.url))
    }
}

impl OauthTokens {
    /// Creates the HTTP client for the token endpoint. Fails with `Invalid` if the URL or a certificate is invalid.
    pub(super) fn new(source: &str, config: &OauthConfig, clock: Clock) -> Result<Self> {
        let key = |field: &str| format!("sources.{source}.oauth.{field}");
        let url = parse_url(&config.token_url, Plaintext::Loopback).map_err(|error| error.at(key("token_url")))?;
        let roots = Roots::load(config.ca_file.as_deref()).map_err(|error| error.at(key("ca_file")))?;
        let settings = Settings {
            peer: "the token endpoint",
            time_max: FETCH_TIME_MAX,
            body_bytes_max: RESPONSE_BYTES_MAX,
            body_bytes_key: None,
            ca_key: Some("ca_file"),
            redirects_max: 0,
            plaintext: Plaintext::Loopback,
            retry: Retry::NONE,
        };
        let client = Client::new(settings, &roots)?;
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        let optional = [("scope", &config.scope), ("audience", &config.audience)];
        for (name, value) in optional.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            form.append_pair(name, value);
        }
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let (id, secret) = (config.client_id.clone(), encoded(config.client_secret.expose()));
        Ok(Self { url, client, id, secret, form: form.finish(), clock })
    }

    /// Fetches a new token. Fails with `Forbidden` if the endpoint rejects the request, with `Limited` if the response
    /// is too large, and with `Unavailable` if there is no valid response.
    pub(super) async fn fetch(&self) -> Result<OauthToken> {
        let id: String = byte_serialize(self.id.as_bytes()).collect();
        let request = Request::post(self.url.clone(), "application/x-www-form-urlencoded", self.form.clone());
        let request = request.header("accept", "application/json").basic(id, &self.secret);
        let response = self.client.send(&request).await?;
        if response.status != StatusCode::OK {
            return Err(self.error_response(response.status, &response.body));
        }
        self.read(&response.body)
    }

    /// Parses a response that contains a token.
    fn read(&self, body: &[u8]) -> Result<OauthToken> {
        let response: TokenResponse = serde_json::from_slice(body)
            .map_err(|_| self.invalid_response("is not a JSON object with an `access_token`"))?;
        if response.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(self.invalid_response("has a `token_type` other than `Bearer`"));
        }
        if response.access_token.is_empty() || !response.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.invalid_response("has an invalid `access_token`"));
        }
        let lifetime = match &response.expires_in {
            None | Some(Value::Null) => Some(LIFETIME_DEFAULT),
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_i64(),
            Some(_) => None,
        };
        let lifetime =
            lifetime.ok_or_else(|| self.invalid_response("has an `expires_in` that is not a number of seconds"))?;
        if lifetime < LIFETIME_MIN {
            return Err(self.invalid_response(format!(
                "contains a token that expires in {lifetime} s; configure a lifetime of at least {LIFETIME_MIN} s"
            )));
        }
        let expires = self.clock.now() / 1_000 + lifetime.min(LIFETIME_MAX) * 1_000;
        Ok(OauthToken { text: response.access_token, principal: self.id.clone(), expires })
    }

    fn error_response(&self, status: StatusCode, body: &[u8]) -> Error {
        let TokenErrorResponse { error, error_description } = serde_json::from_slice(body).unwrap_or_default();
        let detail =
            [error, error_description].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
        let detail: String = detail.chars().filter(|letter| !letter.is_control()).take(ERROR_TEXT_MAX).collect();
        let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
        let message = format!("the token endpoint {} returned {status}{detail}", redacted(&self.url));
        if status.is_client_error() { Error::forbidden(message) } else { Error::unavailable(message) }
    }

    fn invalid_response(&self, what: impl fmt::Display) -> Error {
        Error::unavailable(format!("the response from the token endpoint {} {what}", redacted(&self.url)))
    }
}
