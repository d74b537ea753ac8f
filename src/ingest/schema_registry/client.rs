//! A client that fetches schemas from a schema registry by their ids. The schema with a given id never changes, so the
//! client requests each id only once.
//!
//! ```text
//!   ids of a batch ─► known? ─ no ─► GET /schemas/ids/{id} ─► GET /subjects/{s}/versions/{v} for its references ─► known
//!                                        │
//!                                        ├─ the registry has no such id (after two requests) ─► unknown for a while
//!                                        └─ any other response ─► `Unavailable`: the batch is read again
//! ```
//!
//! [`RegistryClient::resolve`] takes schema ids and returns parsed schemas. The operator configures the URLs of the
//! registry. Each request has a time limit, and each response has a size limit. The client follows no redirects, so it
//! sends credentials only to the configured hosts.
//!
//! **Invariant:** an id is treated as unknown only if the registry returns one of its error codes for missing objects.
//! A wrong URL, wrong credentials or the error page of a proxy therefore never cause messages to be rejected.
//!
//! Source: Confluent's documentation of the Schema Registry API.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use url::Url;

use crate::config::RegistryConfig;
use crate::contract::{AvroSchema, ProtoFile};
use crate::error::{Error, Kind, Result};
use crate::http_client::{
    Client, Plaintext, Request, Response, Retry, Roots, Settings, StatusCode, parse_url, redacted,
};
use crate::telemetry::{Metrics, RegistryAnswer};

/// The maximum number of schemas that one schema may reference, directly or indirectly.
const REFERENCES_MAX: usize = 64;
/// The maximum number of new ids in one batch. A producer that sends invalid ids can thus cause only a limited number
/// of requests. If a batch has more new ids, the source reads it again in smaller batches.
const NEW_IDS_MAX: usize = 64;
/// The maximum number of concurrent requests.
const REQUESTS_MAX: usize = 8;
/// The time limit for fetching the schemas for all new ids in one batch. Schemas that arrive in time are cached, so a
/// retry requests only the missing schemas.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(30);
/// The pause before an unknown id is requested a second time. The first response may have come from a replica that did
/// not have the schema yet.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The time for which an id is cached as unknown.
const UNKNOWN_CACHE_TIME: Duration = Duration::from_secs(30);
/// The error codes in the registry's protocol for a missing subject, version or schema.
const NOT_FOUND_CODES: [u32; 3] = [40_401, 40_402, 40_403];

/// The result of resolving a schema id.
#[derive(Debug, Clone)]
pub(in crate::ingest) enum ResolvedSchema {
    Avro(Arc<AvroSchema>),
    Protobuf(Arc<ProtoFile>),
    /// A schema of an unsupported type. Contains the registry's name for the type.
    Other(Arc<str>),
    /// A schema that cannot be used. Contains the reason.
    Unusable(Arc<str>),
    /// The registry does not have a schema with this id.
    Unknown,
}

/// A client of a schema registry, with a cache of schemas.
pub(super) struct RegistryClient {
    /// The name of the source, for error messages and metrics.
    source: String,
    urls: Vec<Url>,
    client: Client,
    config: RegistryConfig,
    /// True if the messages are in Debezium's envelope, so that their schemas may contain its logical types.
    is_debezium: bool,
    metrics: Arc<Metrics>,
    cache: Mutex<SchemaCache>,
}

/// Formats the URLs without their credentials.
impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(redacted).collect();
        write!(f, "RegistryClient({urls:?})")
    }
}

/// A cache of resolved ids, which evicts the oldest id when it is full.
#[derive(Debug, Default)]
struct SchemaCache {
    /// The schema for each id, and the time at which it was received.
    schemas: HashMap<u32, (ResolvedSchema, Instant)>,
    /// The ids in the order in which they were added.
    order: VecDeque<u32>,
}

/// The registry's response to a request for a schema.
#[derive(Debug, Deserialize)]
struct SchemaResponse {
    schema: String,
    #[serde(rename = "schemaType", default)]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

/// A reference from one schema to another.
#[derive(Debug, Clone, Deserialize)]
struct Reference {
    /// The name by which the referring schema refers to the other schema: the path of an import in protobuf, or the
    /// full name of a type in Avro.
    name: String,
    subject: String,
    version: i64,
}

/// The registry's error response.
#[derive(Debug, Deserialize)]
struct ErrorResponse {
    error_code: u32,
}

impl RegistryClient {
    /// Creates the client for a source. Fails with `Invalid` if a URL or a certificate is invalid.
    pub(super) fn new(source: &str, config: &RegistryConfig, is_debezium: bool, metrics: Arc<Metrics>) -> Result<Self> {
        let has_secret = config.password.is_some() || config.token.is_some();
        let plaintext = if has_secret { Plaintext::Loopback } else { Plaintext::Anywhere };
        let urls = config.urls.iter().map(|text| {
            // Add a trailing slash to the base URL. Otherwise, joining a path would replace the last segment of the
            // base URL.
            let base = format!("{}/", text.trim_end_matches('/'));
            parse_url(&base, plaintext).map_err(|error| error.at("`urls`"))
        });
        let urls = urls.collect::<Result<Vec<_>>>()?;
        let roots = Roots::load(config.ca_file.as_deref()).map_err(|error| error.at("`ca_file`"))?;
        let settings = Settings {
            peer: "the schema registry at",
            time_max: config.request_time_max,
            body_bytes_max: config.schema_bytes_max,
            body_bytes_key: None,
            ca_key: Some("ca_file"),
            redirects_max: 0,
            plaintext,
            // If several URLs are configured, the client tries the next URL instead of retrying the same URL.
            retry: if urls.len() > 1 { Retry::NONE } else { Retry::BRIEF },
        };
        let client = Client::new(settings, &roots)?;
        let (source, config, cache) = (source.to_owned(), config.clone(), Mutex::default());
        Ok(Self { source, urls, client, config, is_debezium, metrics, cache })
    }

    /// Resolves ids. Fails with `Unavailable` if the registry does not respond. Fails with `Limited` if too many of the
    /// ids are new. The error does not suggest a delay before a retry, because retrying the same batch cannot succeed.
    pub(super) async fn resolve(&self, ids: BTreeSet<u32>) -> Result<BTreeMap<u32, ResolvedSchema>> {
        let mut found: BTreeMap<u32, ResolvedSchema> = {
            let cache = self.cache();
            ids.iter().filter_map(|id| Some((*id, cache.find(*id)?))).collect()
        };
        let new: Vec<u32> = ids.into_iter().filter(|id| !found.contains_key(id)).collect();
        if new.len() > NEW_IDS_MAX {
            return Err(Error::limited(format!(
                "a batch refers to {} new schemas, but at most {NEW_IDS_MAX} can be requested together",
                new.len()
            )));
        }
        let resolving = tokio::time::timeout(RESOLVE_TIME_MAX, self.fetch_new(new));
        let timed_out = |_| {
            Error::unavailable(format!(
                "the schema registry did not respond to all requests within {RESOLVE_TIME_MAX:?}"
            ))
        };
        found.extend(resolving.await.map_err(timed_out)??);
        Ok(found)
    }

    /// Requests schemas from the registry. An id that the registry does not know is requested once more before it is
    /// cached as unknown.
    async fn fetch_new(&self, ids: Vec<u32>) -> Result<Vec<(u32, ResolvedSchema)>> {
        let mut fetched = self.fetch_all(ids).await?;
        let unknown: Vec<u32> =
            fetched.iter().filter(|(_, schema)| matches!(schema, ResolvedSchema::Unknown)).map(|(id, _)| *id).collect();
        if !unknown.is_empty() {
            tokio::time::sleep(RETRY_PAUSE).await;
            let again = self.fetch_all(unknown).await?;
            for (id, schema) in &again {
                self.cache().insert(*id, schema.clone(), self.config.schemas_max);
            }
            fetched.extend(again);
        }
        Ok(fetched)
    }

    /// Requests schemas concurrently, and caches those that the registry has.
    async fn fetch_all(&self, ids: Vec<u32>) -> Result<Vec<(u32, ResolvedSchema)>> {
        // The ids are moved into the futures, so that the futures are `Send`.
        let requests = ids.into_iter().map(|id| async move {
            let schema = self.fetch(id).await.map_err(|error| {
                self.metrics.sources.registry(&self.source, RegistryAnswer::Failed);
                error.at(format!("schema {id}"))
            })?;
            let answer = match schema {
                ResolvedSchema::Unknown => RegistryAnswer::Unknown,
                _ => RegistryAnswer::Found,
            };
            self.metrics.sources.registry(&self.source, answer);
            // Cache the schema immediately, so that it is not requested again if the request for another schema fails.
            if answer == RegistryAnswer::Found {
                self.cache().insert(id, schema.clone(), self.config.schemas_max);
            }
            Ok((id, schema))
        });
        futures::stream::iter(requests).buffer_unordered(REQUESTS_MAX).try_collect().await
    }

    /// Requests and parses one schema and the schemas that it references.
    async fn fetch(&self, id: u32) -> Result<ResolvedSchema> {
        let response: SchemaResponse = match self.request(&["schemas", "ids", &id.to_string()], &[]).await {
            Ok(Some(body)) => parse(&body)?,
            Ok(None) => return Ok(ResolvedSchema::Unknown),
            Err(RegistryError::Unavailable(error)) => return Err(error),
            Err(RegistryError::TooLarge) => return Ok(ResolvedSchema::Unusable(self.too_large().into())),
        };
        let kind = response.kind.as_deref().unwrap_or("AVRO");
        if !["AVRO", "PROTOBUF"].contains(&kind) {
            return Ok(ResolvedSchema::Other(kind.into()));
        }
        let (is_avro, is_debezium) = (kind == "AVRO", self.is_debezium);
        let references = match self.references(response.references).await? {
            Ok(references) => references,
            Err(why) => return Ok(ResolvedSchema::Unusable(why.into())),
        };
        let parsing = tokio::task::spawn_blocking(move || match is_avro {
            true => {
                let references: Vec<String> = references.into_iter().map(|(_, text)| text).collect();
                let parse = if is_debezium { AvroSchema::parse_debezium } else { AvroSchema::parse };
                parse(&response.schema, &references).map(|schema| ResolvedSchema::Avro(Arc::new(schema)))
            }
            false => {
                ProtoFile::compile(&response.schema, references).map(|file| ResolvedSchema::Protobuf(Arc::new(file)))
            }
        });
        // A schema that is invalid, or on which the parser panics, will never become usable, because the schema with a
        // given id never changes.
        Ok(match parsing.await {
            Ok(Ok(schema)) => schema,
            Ok(Err(error)) => ResolvedSchema::Unusable(error.message().into()),
            Err(_) => ResolvedSchema::Unusable("the schema cannot be read".into()),
        })
    }

    /// Returns the schemas to which a schema refers, directly or indirectly. Each value consists of the name that the
    /// referring schema uses, and the text of the schema. The inner error explains why the schemas cannot be used.
    async fn references(&self, mut pending: Vec<Reference>) -> Result<Result<Vec<(String, String)>, String>> {
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        while let Some(Reference { name, subject, version }) = pending.pop() {
            if !seen.insert((subject.clone(), version)) {
                continue;
            }
            if seen.len() > REFERENCES_MAX {
                return Ok(Err(format!("the schema refers to more than {REFERENCES_MAX} other schemas")));
            }
            // Include deleted schemas, because messages in the topic may still use them.
            let path = ["subjects", &subject, "versions", &version.to_string()];
            match self.request(&path, &[("deleted", "true")]).await {
                Ok(Some(body)) => {
                    let response: SchemaResponse = parse(&body)?;
                    pending.extend(response.references);
                    found.push((name, response.schema));
                }
                Ok(None) => {
                    return Ok(Err(format!(
                        "it refers to version {version} of `{subject}`, which the registry does not have"
                    )));
                }
                Err(RegistryError::Unavailable(error)) => return Err(error),
                Err(RegistryError::TooLarge) => return Ok(Err(self.too_large())),
            }
        }
        Ok(Ok(found))
    }

    /// Tries the configured URLs in order, and returns the first response. Returns `None` if the registry does not have
    /// the object.
    async fn request(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Option<Bytes>, RegistryError> {
        let mut last = RegistryError::Unavailable(Error::unavailable("no schema registry is configured"));
        for base in &self.urls {
            match self.request_from(base, path, query).await {
                Ok(response) => return Ok(response),
                Err(RegistryError::TooLarge) => return Err(RegistryError::TooLarge),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends a request to one URL. Returns `None` if the registry does not have the object.
    async fn request_from(
        &self,
        base: &Url,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Option<Bytes>, RegistryError> {
        let mut url = base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let accepted = "application/vnd.schemaregistry.v1+json, application/json";
        let mut request = Request::get(url).header("accept", accepted);
        if let (Some(user), Some(password)) = (&self.config.user, &self.config.password) {
            request = request.basic(user, password.expose());
        }
        if let Some(token) = &self.config.token {
            request = request.bearer(token.expose());
        }
        let shown = redacted(base);
        let unavailable = |what: String| {
            RegistryError::Unavailable(Error::unavailable(format!("the schema registry at {shown} {what}")))
        };
        let Response { status, body, .. } = self.client.send(&request).await.map_err(|error| match error.kind() {
            Kind::Limited => RegistryError::TooLarge,
            _ => RegistryError::Unavailable(error),
        })?;
        let code = serde_json::from_slice::<ErrorResponse>(&body).ok().map(|response| response.error_code);
        match status {
            StatusCode::OK if parse::<serde_json::Value>(&body).is_err() => Err(unavailable(
                "returned a body that is not JSON: check that the URL is the address of the registry's API".to_owned(),
            )),
            StatusCode::OK => Ok(Some(body)),
            StatusCode::NOT_FOUND if code.is_some_and(|code| NOT_FOUND_CODES.contains(&code)) => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let name = &self.source;
                Err(unavailable(format!(
                    "returned {status}: check sources.{name}.registry.user and password, or token"
                )))
            }
            StatusCode::NOT_FOUND => Err(unavailable(format!(
                "returned {status} without a schema registry's error code: check the registry's URL"
            ))),
            status => Err(unavailable(format!("returned {status}"))),
        }
    }

    /// Returns the message for a schema that is larger than the size limit.
    fn too_large(&self) -> String {
        let (name, bytes_max) = (&self.source, self.config.schema_bytes_max);
        format!("the schema has more than {bytes_max} bytes (sources.{name}.registry.schema_bytes_max)")
    }

    /// Locks the cache. A poisoned lock is safe to use, because no update of the cache can panic midway.
    fn cache(&self) -> MutexGuard<'_, SchemaCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reason why a request failed.
#[derive(Debug)]
enum RegistryError {
    /// The registry does not respond, or its response does not follow the registry's protocol.
    Unavailable(Error),
    /// The response exceeds the size limit.
    TooLarge,
}

impl SchemaCache {
    /// Returns the cached result for an id. The result "unknown" is returned only until it expires.
    fn find(&self, id: u32) -> Option<ResolvedSchema> {
        let (schema, since) = self.schemas.get(&id)?;
        let is_old = matches!(schema, ResolvedSchema::Unknown) && since.elapsed() >= UNKNOWN_CACHE_TIME;
        (!is_old).then(|| schema.clone())
    }

    /// Adds a schema, and evicts the oldest ids until at most `count_max` ids are left.
    fn insert(&mut self, id: u32, schema: ResolvedSchema, count_max: usize) {
        if self.schemas.insert(id, (schema, Instant::now())).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > count_max {
            if let Some(oldest) = self.order.pop_front() {
                self.schemas.remove(&oldest);
            }
        }
    }
}

/// Parses a response from the registry.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|cause| {
        Error::unavailable("the schema registry returned a response that does not follow its protocol")
            .with_source(cause)
    })
}
