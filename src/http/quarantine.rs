//! `/v1/quarantine` and `/v1/tables/{table}/quarantine…`: lists, replays and drops rejected events.
//!
//! The query string of a GET or the JSON body of a POST selects the entries. Depending on the route, the response
//! contains the number of entries, the entries themselves, or the outcome of a replay or drop. Times are in UTC, in the
//! format of RFC 3339. A payload is shown as text if it is valid UTF-8, and otherwise as hexadecimal digits.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::HeaderMap;
use chrono::{DateTime, SecondsFormat};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{self, BodyLimits};
use super::caller::caller;
use super::content_type::ContentEncoding;
use super::error::ErrorBody;
use super::{HttpHandler, content_type};
use crate::clock::Micros;
use crate::error::{Error, Kind, Result};
use crate::ingest::{self, EntryCount, EntryCursor, EntryFilter, EntryPage, QuarantineEntry, ReplayResult};
use crate::tenancy::Access;

/// The default number of entries that one list response contains.
const LIST_ENTRIES: usize = 100;
/// The default number of entries that one request replays or drops.
const PAGE_ENTRIES: usize = 256;
/// The maximum size of a JSON body that selects entries.
const PICK_BYTES_MAX: usize = 256 * 1024;

/// The query string of a list request. It selects the entries to show.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    tenant: Option<String>,
    reason: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
}

/// The query string of a request for a single entry. It names the tenant that owns the entry.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Whose {
    tenant: Option<String>,
}

/// The JSON body of a replay or drop request. It selects the entries to process.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Picked {
    ids: Vec<String>,
    tenant: Option<String>,
    reason: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    /// The position from which a replay continues: the value of `next` in the previous response.
    after: Option<String>,
    /// Whether all entries are selected.
    all: bool,
}

type PathOf<T> = Result<Path<T>, PathRejection>;
type QueryOf<T> = Result<Query<T>, QueryRejection>;

/// Handles `GET /v1/quarantine`. Returns the number of open entries by table, reason and tenant.
pub(super) async fn counts(
    State(handler): State<Arc<HttpHandler>>,
    headers: HeaderMap,
    asked: QueryOf<Asked>,
) -> Result<Json<Value>, ErrorBody> {
    let access = caller(&handler, &headers).await?;
    let pick = query(asked)?.pick()?;
    let services = &handler.services;
    let mut counts = Vec::new();
    for table in services.writer.tables().keys() {
        match services.quarantine.list(&access, table, &pick, 0).await {
            Ok(listing) => counts.extend(listing.counts.iter().map(|count| counted(table, count))),
            // The caller has no access to this table, or the table is itself a quarantine.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(json!({ "counts": counts })))
}

/// Handles `GET /v1/tables/{table}/quarantine`. Returns the newest open entries of one table's quarantine, and the
/// number of open entries.
pub(super) async fn list(
    State(handler): State<Arc<HttpHandler>>,
    table: PathOf<String>,
    headers: HeaderMap,
    asked: QueryOf<Asked>,
) -> Result<Json<Value>, ErrorBody> {
    let access = caller(&handler, &headers).await?;
    let (table, asked) = (path(table)?, query(asked)?);
    let limit = asked.limit.unwrap_or(LIST_ENTRIES);
    let listing = handler.services.quarantine.list(&access, &table, &asked.pick()?, limit).await?;
    let counts: Vec<Value> = listing.counts.iter().map(|count| counted(&table, count)).collect();
    let entries: Vec<Value> = listing.entries.iter().map(shown).collect();
    Ok(Json(json!({ "counts": counts, "entries": entries })))
}

/// Handles `GET /v1/tables/{table}/quarantine/{id}`. Returns the open entries that have this id, including their
/// payloads.
pub(super) async fn show(
    State(handler): State<Arc<HttpHandler>>,
    table: PathOf<(String, String)>,
    headers: HeaderMap,
    whose: QueryOf<Whose>,
) -> Result<Json<Value>, ErrorBody> {
    let access = caller(&handler, &headers).await?;
    let ((table, id), whose) = (path(table)?, query(whose)?);
    let (entries, _reservation) =
        handler.services.quarantine.show(&access, &table, &id, whose.tenant.as_deref()).await?;
    Ok(Json(json!({ "entries": entries.iter().map(with_payload).collect::<Vec<_>>() })))
}

/// Handles `POST /v1/tables/{table}/quarantine/replay`, which ingests the payloads of the selected entries again,
/// without changes.
pub(super) async fn replay(
    State(handler): State<Arc<HttpHandler>>,
    table: PathOf<String>,
    request: Request,
) -> Result<Json<Value>, ErrorBody> {
    let table = path(table)?;
    let (access, picked) = posted(&handler, &table, request).await?;
    let after = picked.after.as_deref().map(EntryCursor::parse).transpose()?;
    let page = EntryPage { after, limit: picked.limit.unwrap_or(PAGE_ENTRIES) };
    let replayed = handler.services.quarantine.replay(&access, &table, &picked.pick()?, page).await?;
    Ok(Json(told(replayed)))
}

/// Handles `POST /v1/tables/{table}/quarantine/{id}/replay`, which ingests the event in the request instead of the
/// entry's payload.
pub(super) async fn replay_fixed(
    State(handler): State<Arc<HttpHandler>>,
    table: PathOf<(String, String)>,
    whose: QueryOf<Whose>,
    request: Request,
) -> Result<Json<Value>, ErrorBody> {
    let (head, mut body) = request.into_parts();
    let ((table, id), whose) = (path(table)?, query(whose)?);
    let entry = (table.as_str(), id.as_str(), whose.tenant.as_deref());
    let replayed = replay_body(&handler, entry, &head.headers, &mut body).await;
    if replayed.is_err() {
        body::discard(&mut body).await;
    }
    Ok(Json(told(replayed?)))
}

/// Authorizes the caller, reads the event from the body, and replays the entry with this event.
async fn replay_body(
    handler: &HttpHandler,
    (table, id, tenant): (&str, &str, Option<&str>),
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<ReplayResult, ErrorBody> {
    let services = &handler.services;
    let access = caller(handler, headers).await?;
    services.quarantine.authorize_changes(&access, table)?;
    let (format, encoding) = (content_type::format(headers)?, content_type::encoding(headers)?);
    let mut reservation = services.writer.reservation();
    let bounds = BodyLimits::from(&services.limits);
    let plain = body::read(body, encoding, bounds, &mut reservation, &services.metrics).await?;
    let event = ingest::Body::Encoded(format, plain);
    Ok(services.quarantine.replay_fixed(&access, table, id, tenant, event).await?)
}

/// Handles `POST /v1/tables/{table}/quarantine/drop`, which closes entries without ingesting their events.
pub(super) async fn discard(
    State(handler): State<Arc<HttpHandler>>,
    table: PathOf<String>,
    request: Request,
) -> Result<Json<Value>, ErrorBody> {
    let table = path(table)?;
    let (access, picked) = posted(&handler, &table, request).await?;
    let pick = picked.pick()?;
    if pick.is_all() && !picked.all {
        return Err(Error::invalid(
            "no entries are selected: set `ids`, `tenant`, `reason` or `since`, or `\"all\": true`",
        )
        .into());
    }
    let limit = picked.limit.unwrap_or(PAGE_ENTRIES);
    let closed = handler.services.quarantine.drop_entries(&access, &table, &pick, limit).await?;
    Ok(Json(json!({ "dropped": closed.dropped, "more": closed.more })))
}

impl Asked {
    fn pick(&self) -> Result<EntryFilter> {
        let since = self.since.as_deref().map(moment).transpose()?;
        Ok(EntryFilter { ids: Vec::new(), tenant: self.tenant.clone(), reason: self.reason.clone(), since })
    }
}

impl Picked {
    fn pick(&self) -> Result<EntryFilter> {
        let since = self.since.as_deref().map(moment).transpose()?;
        Ok(EntryFilter { ids: self.ids.clone(), tenant: self.tenant.clone(), reason: self.reason.clone(), since })
    }
}

/// Authorizes the caller and reads the selection of entries from the body. An empty body is treated as an empty object.
async fn posted(handler: &HttpHandler, table: &str, request: Request) -> Result<(Access, Picked), ErrorBody> {
    let (head, mut body): (_, Body) = request.into_parts();
    let posted = read_selection(handler, table, &head.headers, &mut body).await;
    if posted.is_err() {
        body::discard(&mut body).await;
    }
    posted
}

async fn read_selection(
    handler: &HttpHandler,
    table: &str,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<(Access, Picked), ErrorBody> {
    let services = &handler.services;
    let access = caller(handler, headers).await?;
    services.quarantine.authorize_changes(&access, table)?;
    let mut reservation = services.writer.reservation();
    let bounds = BodyLimits { bytes_max: PICK_BYTES_MAX, ..BodyLimits::from(&services.limits) };
    let text = body::read(body, ContentEncoding::Identity, bounds, &mut reservation, &services.metrics).await?;
    if text.trim_ascii().is_empty() {
        return Ok((access, Picked::default()));
    }
    let picked = serde_json::from_slice(&text);
    Ok((
        access,
        picked.map_err(|fault| Error::invalid(format!("the body is not a valid selection of entries: {fault}")))?,
    ))
}

pub(super) fn path<T>(given: PathOf<T>) -> Result<T> {
    given.map(|Path(path)| path).map_err(|_| Error::invalid("a name in the path is not valid UTF-8"))
}

fn query<T>(given: QueryOf<T>) -> Result<T> {
    given
        .map(|Query(query)| query)
        .map_err(|fault| Error::invalid(format!("invalid query string: {}", fault.body_text())))
}

fn moment(text: &str) -> Result<Micros> {
    let moment = DateTime::parse_from_rfc3339(text).map(|moment| moment.timestamp_micros());
    moment.map_err(|_| Error::invalid("`since` must be a time such as 2026-03-01T12:00:00Z"))
}

/// Formats a time as RFC 3339 in UTC.
pub(super) fn told_time(micros: Micros) -> String {
    let moment = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    moment.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn counted(table: &str, count: &EntryCount) -> Value {
    let (first, last) = count.received;
    json!({
        "table": table, "reason": count.reason, "tenant": count.tenant, "count": count.count,
        "first_received_time": told_time(first), "last_received_time": told_time(last),
    })
}

fn shown(entry: &QuarantineEntry) -> Value {
    json!({
        "id": entry.id, "received_time": told_time(entry.received), "tenant": entry.tenant, "reason": entry.reason,
        "detail": entry.detail, "place": entry.place,
    })
}

fn with_payload(entry: &QuarantineEntry) -> Value {
    let mut shown = shown(entry);
    let payload = entry.payload.as_deref().unwrap_or_default();
    shown["format"] = entry.format.as_str().into();
    match std::str::from_utf8(payload) {
        Ok(text) => shown["payload"] = text.into(),
        Err(_) => shown["payload_hex"] = payload.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
    shown
}

fn told(replayed: ReplayResult) -> Value {
    let rejects = replayed.rejects.iter().map(|reject| {
        json!({ "id": reject.id, "tenant": reject.tenant, "reason": reject.reason.as_str(), "detail": reject.detail })
    });
    json!({
        "accepted": replayed.accepted, "duplicate": replayed.duplicate, "rejected": replayed.rejected,
        "rejects": rejects.collect::<Vec<_>>(), "version": replayed.version,
        "next": replayed.next.map(|mark| mark.text()),
    })
}
