//! OAuth tokens for a source's login to its brokers, fetched from an identity provider when they are due.
//!
//! In: `[sources.NAME.oauth]`. Out: an [`OauthToken`] for SASL's `OAUTHBEARER`, by the grant `client_credentials` (RFC 6749,
//! section 4.4). The client authenticates with HTTP basic authentication (section 2.3.1).
//!
//! **Invariant:** a fetch is bounded in time and size, follows no redirect, and does not retry by itself.
//! **Invariant:** no message contains the secret or a token.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::clock::Clock;
use crate::config::OauthConfig;
use crate::error::{Error, Result};
use crate::outbound::{Client, Plaintext, Request, Retry, Roots, Settings, StatusCode, parse_url, redacted};

/// The time limit of one fetch, from connecting to the last byte.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// The size limit of a response, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The length limit of the provider's error text, in characters.
const COMPLAINT_MAX: usize = 300;
/// The shortest accepted lifetime of a token, in seconds. With shorter ones a source would fetch tokens all the time.
const LIFE_MIN: i64 = 10;
/// The lifetime of a token without `expires_in`, in seconds. The client fetches the next token after four fifths of it.
const LIFE_UNSAID: i64 = 300;
/// The upper limit of a lifetime, in seconds; longer ones are cut to it.
const LIFE_MAX: i64 = 7 * 24 * 3_600;

/// Fetches the tokens of one source.
pub(super) struct OauthTokens {
    url: Url,
    client: Client,
    id: String,
    secret: String,
    form: String,
    clock: Clock,
}

/// A login token.
pub(super) struct OauthToken {
    pub(super) text: String,
    /// The client id that the token belongs to, for the log.
    pub(super) principal: String,
    /// When the token expires, in milliseconds since 1970.
    pub(super) ends: i64,
}

/// The endpoint's response with a token.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Value>,
}

/// The endpoint's error response (RFC 6749, section 5.2).
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenRefusal {
    error: String,
    error_description: String,
}

/// Without the secret.
impl fmt::Debug for OauthTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({} from {})", self.id, redacted(&self.url))
    }
}

impl OauthTokens {
    /// Makes the checks that need more than the configuration. Fails with `Invalid` if the URL or a certificate is invalid.
    pub(super) fn new(source: &str, config: &OauthConfig, clock: Clock) -> Result<Self> {
        let key = |field: &str| format!("sources.{source}.oauth.{field}");
        let url = parse_url(&config.token_url, Plaintext::Loopback).map_err(|error| error.at(key("token_url")))?;
        let roots = Roots::load(config.ca_file.as_deref()).map_err(|error| error.at(key("ca_file")))?;
        let settings = Settings {
            peer: "the token endpoint",
            time_max: FETCH_TIME_MAX,
            body_bytes_max: ANSWER_BYTES_MAX,
            body_bytes_key: None,
            ca_key: Some("ca_file"),
            redirects_max: 0,
            plaintext: Plaintext::Loopback,
            retry: Retry::NONE,
        };
        let client = Client::new(settings, &roots)?;
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        let more = [("scope", &config.scope), ("audience", &config.audience)];
        for (name, value) in more.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            form.append_pair(name, value);
        }
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let (id, secret) = (config.client_id.clone(), encoded(config.client_secret.expose()));
        Ok(Self { url, client, id, secret, form: form.finish(), clock })
    }

    /// Fetches a new token. Fails with `Unavailable` or `Limited` if the response is unusable, and with `Forbidden` if the
    /// endpoint rejects the request.
    pub(super) async fn fetch(&self) -> Result<OauthToken> {
        let id: String = byte_serialize(self.id.as_bytes()).collect();
        let request = Request::post(self.url.clone(), "application/x-www-form-urlencoded", self.form.clone());
        let request = request.header("accept", "application/json").basic(id, &self.secret);
        let answer = self.client.send(&request).await?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(answer.status, &answer.body));
        }
        self.read(&answer.body)
    }

    /// Parses the token of a response.
    fn read(&self, body: &[u8]) -> Result<OauthToken> {
        let answer: TokenAnswer =
            serde_json::from_slice(body).map_err(|_| self.odd("is not a JSON object with an `access_token`"))?;
        if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(self.odd("has a `token_type` other than `Bearer`"));
        }
        if answer.access_token.is_empty() || !answer.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.odd("has an invalid `access_token`"));
        }
        let life = match &answer.expires_in {
            None | Some(Value::Null) => Some(LIFE_UNSAID),
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_i64(),
            Some(_) => None,
        };
        let life = life.ok_or_else(|| self.odd("has an `expires_in` that is not a number of seconds"))?;
        if life < LIFE_MIN {
            return Err(
                self.odd(format!("has a token that expires in {life} s: let tokens live at least {LIFE_MIN} s"))
            );
        }
        let ends = self.clock.now() / 1_000 + life.min(LIFE_MAX) * 1_000;
        Ok(OauthToken { text: answer.access_token, principal: self.id.clone(), ends })
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        let TokenRefusal { error, error_description } = serde_json::from_slice(body).unwrap_or_default();
        let said =
            [error, error_description].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
        let said: String = said.chars().filter(|letter| !letter.is_control()).take(COMPLAINT_MAX).collect();
        let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
        let message = format!("the token endpoint {} answers {status}{said}", redacted(&self.url));
        if status.is_client_error() { Error::forbidden(message) } else { Error::unavailable(message) }
    }

    fn odd(&self, what: impl fmt::Display) -> Error {
        Error::unavailable(format!("the response of the token endpoint {} {what}", redacted(&self.url)))
    }
}
