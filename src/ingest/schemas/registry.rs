//! The client of a schema registry, which resolves schema ids. It requests each id once, because a schema never changes.
//!
//! ```text
//!   ids of a batch ─► known? ─ no ─► GET /schemas/ids/{id} ─► GET /subjects/{s}/versions/{v} for its references ─► known
//!                                        │
//!                                        ├─ the registry has no such id (after two requests) ─► unknown for a while
//!                                        └─ any other response ─► `Unavailable`: the batch is read again
//! ```
//!
//! In: the schema ids of messages. Out: parsed schemas. The operator configures the URLs. A response is limited in time and
//! size. The client follows no redirects, so credentials go only to the configured hosts.
//!
//! **Invariant:** an id is unknown only if the registry itself returns one of its protocol's error codes. A wrong path, wrong
//! credentials or a proxy's page are not such responses: no message goes to the quarantine because of them.
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
use crate::outbound::{Client, Plaintext, Request, Response, Retry, Roots, Settings, StatusCode, parse_url, redacted};
use crate::telemetry::{Metrics, RegistryAnswer};

/// The maximum number of schemas that one schema refers to, directly or indirectly.
const REFERENCES_MAX: usize = 64;
/// The maximum number of new ids in one batch; with more, the batch has to be smaller. A producer that sends made-up ids must
/// not cause an unbounded number of requests.
const NEW_IDS_MAX: usize = 64;
/// The maximum number of concurrent requests.
const QUESTIONS_MAX: usize = 8;
/// The time limit for all new ids of one batch. Schemas received by then are cached; the rest are requested again.
const LEARN_TIME_MAX: Duration = Duration::from_secs(30);
/// The pause before the second request for an unknown id: the registry that responds may be a replica that lags.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How long an unknown id is cached.
const UNKNOWN_KEPT: Duration = Duration::from_secs(30);
/// The protocol's error codes for a missing subject, version or schema.
const NOT_FOUND_CODES: [u32; 3] = [40_401, 40_402, 40_403];

/// What an id resolves to.
#[derive(Debug, Clone)]
pub(in crate::ingest) enum KnownSchemas {
    Avro(Arc<AvroSchema>),
    Protobuf(Arc<ProtoFile>),
    /// A schema of another type, by the registry's name of the type.
    Other(Arc<str>),
    /// A schema that cannot be used, with the reason.
    Unusable(Arc<str>),
    /// The registry has no such id.
    Unknown,
}

/// A registry client with a cache of its responses.
pub(super) struct Registry {
    source: String,
    urls: Vec<Url>,
    client: Client,
    config: RegistryConfig,
    metrics: Arc<Metrics>,
    memory: Mutex<SchemaCache>,
}

/// Without secrets.
impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(redacted).collect();
        write!(f, "Registry({urls:?})")
    }
}

/// The cache of ids; it evicts the oldest entry first when it is full.
#[derive(Debug, Default)]
struct SchemaCache {
    known: HashMap<u32, (KnownSchemas, Instant)>,
    order: VecDeque<u32>,
}

/// A schema as the registry returns it.
#[derive(Debug, Deserialize)]
struct LoggedComplaint {
    schema: String,
    #[serde(rename = "schemaType", default)]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

/// Another schema that a schema uses.
#[derive(Debug, Clone, Deserialize)]
struct Reference {
    /// Its name in the referring schema: the path of an import, or a full name.
    name: String,
    subject: String,
    version: i64,
}

/// The registry's error response.
#[derive(Debug, Deserialize)]
struct RegistryComplaint {
    error_code: u32,
}

impl Registry {
    /// Makes the checks that need more than the configuration. Fails with `Invalid` if a certificate is invalid.
    pub(super) fn new(source: &str, config: &RegistryConfig, metrics: Arc<Metrics>) -> Result<Self> {
        let has_secret = config.password.is_some() || config.token.is_some();
        let plaintext = if has_secret { Plaintext::Loopback } else { Plaintext::Anywhere };
        let urls = config.urls.iter().map(|text| {
            // A base URL without a trailing slash would lose its last segment when paths are joined to it.
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
            // With several URLs, the client tries the next one immediately.
            retry: if urls.len() > 1 { Retry::NONE } else { Retry::BRIEF },
        };
        let client = Client::new(settings, &roots)?;
        let (source, config, memory) = (source.to_owned(), config.clone(), Mutex::default());
        Ok(Self { source, urls, client, config, metrics, memory })
    }

    /// Resolves ids. Fails with `Unavailable` if the registry does not respond, and with `Limited`, without a time to wait, if
    /// too many of them are new.
    pub(super) async fn learn(&self, ids: BTreeSet<u32>) -> Result<BTreeMap<u32, KnownSchemas>> {
        let mut found: BTreeMap<u32, KnownSchemas> = {
            let memory = self.memory();
            ids.iter().filter_map(|id| Some((*id, memory.find(*id)?))).collect()
        };
        let new: Vec<u32> = ids.into_iter().filter(|id| !found.contains_key(id)).collect();
        if new.len() > NEW_IDS_MAX {
            return Err(Error::limited(format!(
                "a batch names {} new schemas; at most {NEW_IDS_MAX} are requested at once",
                new.len()
            )));
        }
        let fetching = tokio::time::timeout(LEARN_TIME_MAX, self.fetch_new(new));
        let slow = |_| {
            Error::unavailable(format!("the schema registry did not answer all requests within {LEARN_TIME_MAX:?}"))
        };
        found.extend(fetching.await.map_err(slow)??);
        Ok(found)
    }

    async fn fetch_new(&self, ids: Vec<u32>) -> Result<Vec<(u32, KnownSchemas)>> {
        let mut fetched = self.fetch_all(ids).await?;
        let unknown: Vec<u32> =
            fetched.iter().filter(|(_, known)| matches!(known, KnownSchemas::Unknown)).map(|(id, _)| *id).collect();
        if !unknown.is_empty() {
            tokio::time::sleep(SECOND_LOOK).await;
            let again = self.fetch_all(unknown).await?;
            for (id, known) in &again {
                self.memory().keep(*id, known.clone(), self.config.schemas_max);
            }
            fetched.extend(again);
        }
        Ok(fetched)
    }

    async fn fetch_all(&self, ids: Vec<u32>) -> Result<Vec<(u32, KnownSchemas)>> {
        // The futures own the ids, so that any task can await them.
        let questions = ids.into_iter().map(|id| async move {
            let known = self.fetch(id).await.map_err(|fault| {
                self.metrics.sources.registry(&self.source, RegistryAnswer::Failed);
                fault.at(format!("schema {id}"))
            })?;
            let answer = match known {
                KnownSchemas::Unknown => RegistryAnswer::Unknown,
                _ => RegistryAnswer::Found,
            };
            self.metrics.sources.registry(&self.source, answer);
            // Cached immediately, so that this id is not requested again if another one fails.
            if answer == RegistryAnswer::Found {
                self.memory().keep(id, known.clone(), self.config.schemas_max);
            }
            Ok((id, known))
        });
        futures::stream::iter(questions).buffer_unordered(QUESTIONS_MAX).try_collect().await
    }

    async fn fetch(&self, id: u32) -> Result<KnownSchemas> {
        let told: LoggedComplaint = match self.ask(&["schemas", "ids", &id.to_string()], &[]).await {
            Ok(Some(body)) => read(&body)?,
            Ok(None) => return Ok(KnownSchemas::Unknown),
            Err(RegistryError::Away(error)) => return Err(error),
            Err(RegistryError::Large) => return Ok(KnownSchemas::Unusable(self.too_large().into())),
        };
        let kind = told.kind.as_deref().unwrap_or("AVRO");
        if !["AVRO", "PROTOBUF"].contains(&kind) {
            return Ok(KnownSchemas::Other(kind.into()));
        }
        let is_avro = kind == "AVRO";
        let references = match self.references(told.references).await? {
            Ok(references) => references,
            Err(why) => return Ok(KnownSchemas::Unusable(why.into())),
        };
        let reading = tokio::task::spawn_blocking(move || match is_avro {
            true => {
                let texts: Vec<String> = references.into_iter().map(|(_, text)| text).collect();
                AvroSchema::parse(&told.schema, &texts).map(|schema| KnownSchemas::Avro(Arc::new(schema)))
            }
            false => ProtoFile::compile(&told.schema, references).map(|file| KnownSchemas::Protobuf(Arc::new(file))),
        });
        // A schema in the registry never changes, so an invalid one, or one that its parser panics on, stays unusable.
        Ok(match reading.await {
            Ok(Ok(known)) => known,
            Ok(Err(fault)) => KnownSchemas::Unusable(fault.message().into()),
            Err(_) => KnownSchemas::Unusable("the schema cannot be read".into()),
        })
    }

    /// The schemas that a schema refers to directly or indirectly, each once and by its name in the referring schema; or the
    /// reason why they are not available.
    async fn references(&self, mut open: Vec<Reference>) -> Result<Result<Vec<(String, String)>, String>> {
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        while let Some(Reference { name, subject, version }) = open.pop() {
            if !seen.insert((subject.clone(), version)) {
                continue;
            }
            if seen.len() > REFERENCES_MAX {
                return Ok(Err(format!("the schema refers to more than {REFERENCES_MAX} others")));
            }
            // Messages may use a schema that was deleted later.
            let question = ["subjects", &subject, "versions", &version.to_string()];
            match self.ask(&question, &[("deleted", "true")]).await {
                Ok(Some(body)) => {
                    let told: LoggedComplaint = read(&body)?;
                    open.extend(told.references);
                    found.push((name, told.schema));
                }
                Ok(None) => {
                    return Ok(Err(format!(
                        "it refers to `{subject}`, version {version}, which the registry does not have"
                    )));
                }
                Err(RegistryError::Away(error)) => return Err(error),
                Err(RegistryError::Large) => return Ok(Err(self.too_large())),
            }
        }
        Ok(Ok(found))
    }

    /// The response to one request, from the first URL that responds; `None` if the registry does not have the object.
    async fn ask(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Option<Bytes>, RegistryError> {
        let mut last = RegistryError::Away(Error::unavailable("no schema registry is configured"));
        for base in &self.urls {
            match self.ask_one(base, path, query).await {
                Ok(answer) => return Ok(answer),
                Err(RegistryError::Large) => return Err(RegistryError::Large),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    async fn ask_one(&self, base: &Url, path: &[&str], query: &[(&str, &str)]) -> Result<Option<Bytes>, RegistryError> {
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
        let away =
            |what: String| RegistryError::Away(Error::unavailable(format!("the schema registry at {shown} {what}")));
        let Response { status, body, .. } = self.client.send(&request).await.map_err(|error| match error.kind() {
            Kind::Limited => RegistryError::Large,
            _ => RegistryError::Away(error),
        })?;
        let code = serde_json::from_slice::<RegistryComplaint>(&body).ok().map(|complaint| complaint.error_code);
        match status {
            StatusCode::OK if read::<serde_json::Value>(&body).is_err() => {
                Err(away("answers with a body that is not JSON: is its URL that of its API?".to_owned()))
            }
            StatusCode::OK => Ok(Some(body)),
            StatusCode::NOT_FOUND if code.is_some_and(|code| NOT_FOUND_CODES.contains(&code)) => Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let name = &self.source;
                Err(away(format!("answers {status}: check sources.{name}.registry.user and password, or token")))
            }
            StatusCode::NOT_FOUND => Err(away(format!("answers {status} and not in its protocol: is its URL right?"))),
            status => Err(away(format!("answers {status}"))),
        }
    }

    fn too_large(&self) -> String {
        let (name, bytes_max) = (&self.source, self.config.schema_bytes_max);
        format!("the schema has more than {bytes_max} bytes (sources.{name}.registry.schema_bytes_max)")
    }

    /// No holder of the lock can panic in the middle of an update, so a poisoned lock is safe to use.
    fn memory(&self) -> MutexGuard<'_, SchemaCache> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no response.
#[derive(Debug)]
enum RegistryError {
    /// The registry does not respond, or does not follow its protocol.
    Away(Error),
    /// The response exceeds the size limit.
    Large,
}

impl SchemaCache {
    fn find(&self, id: u32) -> Option<KnownSchemas> {
        let (known, since) = self.known.get(&id)?;
        let is_old = matches!(known, KnownSchemas::Unknown) && since.elapsed() >= UNKNOWN_KEPT;
        (!is_old).then(|| known.clone())
    }

    fn keep(&mut self, id: u32, known: KnownSchemas, count_max: usize) {
        if self.known.insert(id, (known, Instant::now())).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > count_max {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|cause| Error::unavailable("the schema registry's answer is not in its protocol").with_source(cause))
}
