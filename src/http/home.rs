//! Serves the home page at `GET /`, and the documentation at `GET /docs/{name}`. These pages are for users who know
//! only the address of the server.
//!
//! A browser gets HTML. Other clients get JSON (the home page) or Markdown (the documentation).
//!
//! **Invariant:** these pages need no token, so they show no data of any tenant. In particular, they list the names of
//! the tables only if the operator has set `http.home_tables`.
//! **Invariant:** a page loads no other files and runs no scripts. The Content-Security-Policy allows only the
//! stylesheet and the icon that are embedded in the page.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::HttpHandler;
use super::error::ErrorBody;
use super::home_content::{Addresses, DOCS, ROUTES, Route};
use super::html_page;
use super::quarantine::path;
use crate::error::{Error, did_you_mean};

/// The Content-Security-Policy of the pages. The policy allows no scripts and no external files. It allows only the
/// embedded stylesheet, which it identifies by a hash.
static PAGE_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(html_page::STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("the policy consists of visible ASCII characters")
});

/// Handles `GET /`.
pub(super) async fn home(State(handler): State<Arc<HttpHandler>>, headers: HeaderMap) -> Response {
    let home = &handler.services.home;
    let addresses = Addresses::new(home, handler.config.listen, &headers);
    if wants_html(&headers) {
        html(html_page::home(&addresses, home.tables.as_deref()))
    } else {
        with_headers(Json(index(&addresses, home.tables.as_deref())))
    }
}

/// Handles `GET /docs/{name}`.
pub(super) async fn docs(name: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Result<Response, ErrorBody> {
    let name = path(name)?;
    let Some(doc) = DOCS.iter().find(|doc| doc.name == name) else {
        let hint = match did_you_mean(&name, DOCS.iter().map(|doc| doc.name)) {
            hint if hint.is_empty() => "; `/` lists all pages".to_owned(),
            hint => hint,
        };
        return Err(Error::not_found(format!("unknown documentation page `{name}`{hint}")).into());
    };
    if wants_html(&headers) {
        return Ok(html(html_page::document(doc.name, doc.text)));
    }
    Ok(with_headers(([(CONTENT_TYPE, "text/markdown; charset=utf-8")], doc.text)))
}

/// Returns true if the `accept` header contains `text/html`, as it does in requests from browsers. The value `*/*`,
/// which `curl` sends, is not treated as a request for HTML.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("text/html"));
        let is_refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        is_html && !parts.any(is_refused)
    })
}

/// Returns the home page as JSON.
fn index(addresses: &Addresses, tables: Option<&[(String, String)]>) -> Value {
    let Addresses { http, flight, jdbc } = addresses;
    let routes: Vec<Value> = ROUTES
        .iter()
        .map(|Route { method, path, about }| json!({ "method": method, "path": path, "about": about }))
        .collect();
    let mut index = json!({
        "service": "glasshouse",
        "authorization": "send a token in the header `Authorization: Bearer TOKEN`",
        "flight_sql": { "url": flight, "jdbc_url": jdbc },
        "http": { "url": http, "routes": routes },
        "docs": DOCS.iter().map(|doc| format!("{http}/docs/{}", doc.name)).collect::<Vec<_>>(),
    });
    if let Some(tables) = tables {
        let table = |(name, description): &(String, String)| json!({ "name": name, "description": description });
        index["tables"] = tables.iter().map(table).collect();
    }
    index
}

fn html(page: String) -> Response {
    let mut response = with_headers(([(CONTENT_TYPE, "text/html; charset=utf-8")], page));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, PAGE_POLICY.clone());
    response
}

/// Adds the headers that the home page and the documentation have in common. These headers make caches revalidate each
/// page, because its content depends on request headers. They also prevent browsers from guessing the content type.
fn with_headers(page: impl IntoResponse) -> Response {
    let headers = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
        (VARY, "accept, host, x-forwarded-proto"),
    ];
    (headers, page).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |&(name, value): &(&'static str, &'static str)| {
            (axum::http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        list.iter().map(header).collect()
    }

    #[test]
    fn html_is_served_only_if_accepted_by_name() {
        let cases = [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("application/json, Text/HTML; q=0.1", true),
            ("text/html;q=0", false),
            ("text/html;level=1; q=0.0", false),
            ("*/*", false),
            ("text/*", false),
            ("application/json", false),
            ("", false),
        ];
        for (accept, expected) in cases {
            assert_eq!(wants_html(&headers(&[("accept", accept)])), expected, "{accept}");
        }
        assert!(!wants_html(&HeaderMap::new()));
    }
}
