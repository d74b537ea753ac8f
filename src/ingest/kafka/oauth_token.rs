//! The tokens with which a source logs in to its brokers: fetched from an identity provider when they are due.
//!
//! In: `[sources.NAME.oauth]`. Out: a [`OauthToken`] for SASL's `OAUTHBEARER`, by the grant `client_credentials` (RFC 6749,
//! section 4.4), the client named by HTTP's basic scheme as its section 2.3.1 wants it.
//!
//! **Invariant:** a fetch ends: it has a time and a size, follows no redirect, and is not tried again by itself.
//! **Invariant:** neither the secret nor a token is in any message.

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

/// The time for one fetch, from connecting to the last byte.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// An answer with its token, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// What the provider says of an error, in characters.
const COMPLAINT_MAX: usize = 300;
/// The shortest life of a token, in seconds: below it a source would do little else than ask for the next one.
const LIFE_MIN: i64 = 10;
/// The life of a token whose answer does not say it, in seconds. The next one is fetched after four fifths of it.
const LIFE_UNSAID: i64 = 300;
/// The longest life that is believed, in seconds.
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

/// A token.
pub(super) struct OauthToken {
    pub(super) text: String,
    /// Whose it is, for the log.
    pub(super) principal: String,
    /// When it ends, in milliseconds since 1970.
    pub(super) ends: i64,
}

/// What the endpoint answers.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Value>,
}

/// What it answers when it refuses (RFC 6749, section 5.2).
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
    /// Checks what the configuration alone cannot know. `Invalid` for a URL that is none, or certificates that are none.
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

    /// A new token. `Unavailable` or `Limited` when the endpoint does not answer as it should, `Forbidden` when it refuses.
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

    /// The token of an answer.
    fn read(&self, body: &[u8]) -> Result<OauthToken> {
        let answer: TokenAnswer =
            serde_json::from_slice(body).map_err(|_| self.odd("is no JSON object with an `access_token`"))?;
        if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(self.odd("holds another kind of token than `Bearer`"));
        }
        if answer.access_token.is_empty() || !answer.access_token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.odd("holds a token that is none"));
        }
        let life = match &answer.expires_in {
            None | Some(Value::Null) => Some(LIFE_UNSAID),
            Some(Value::String(text)) => text.parse().ok(),
            Some(Value::Number(number)) => number.as_i64(),
            Some(_) => None,
        };
        let life = life.ok_or_else(|| self.odd("has an `expires_in` that is no number of seconds"))?;
        if life < LIFE_MIN {
            return Err(self.odd(format!("holds a token that ends in {life} s: let tokens live {LIFE_MIN} s at least")));
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
        Error::unavailable(format!("the answer of the token endpoint {} {what}", redacted(&self.url)))
    }
}
