//! The home page, `GET /`, and the documentation, `GET /docs/{name}`, for users who know only the address of the
//! server.
//!
//! In: the headers `accept`, `host` and `x-forwarded-proto`. Out: HTML for a browser; JSON or Markdown for other
//! clients.
//!
//! **Invariant:** both work without a token, so they show nothing that belongs to a tenant: no rows, no counts, and
//! table names only if the operator has set `http.home_tables`.
//! **Invariant:** a page loads and runs nothing: its Content-Security-Policy allows only its own stylesheet and icon.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::HttpHandler;
use super::error::ErrorBody;
use super::html_page;
use super::quarantine::path;
use crate::error::{Error, did_you_mean};

/// The facts about this server that the home page shows.
#[derive(Debug, Clone)]
pub struct Home {
    /// The address of the Flight SQL endpoint.
    pub flight: SocketAddr,
    /// Whether that endpoint uses TLS.
    pub flight_tls: bool,
    /// Names and descriptions of the tables; `None` if `http.home_tables` is not set.
    pub tables: Option<Vec<(String, String)>>,
}

/// A route of this endpoint, as the home page lists it.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) about: &'static str,
}

/// All routes. A test compares this list with the router.
pub(super) const ROUTES: [Route; 17] = [
    route("GET", "/", "this page"),
    route("GET", "/docs/{name}", "the documentation"),
    route("GET", "/v1/tables", "the tables and columns that the token can see"),
    route("POST", "/v1/tables/{table}/events", "send events"),
    route("GET", "/v1/tables/{table}/freshness", "up to when a table is complete"),
    route("GET", "/v1/quarantine", "count rejected events"),
    route("GET", "/v1/tables/{table}/quarantine", "list rejected events"),
    route("GET", "/v1/tables/{table}/quarantine/{id}", "show a rejected event"),
    route("POST", "/v1/tables/{table}/quarantine/replay", "send rejected events again"),
    route("POST", "/v1/tables/{table}/quarantine/{id}/replay", "send a fixed event instead of a rejected one"),
    route("POST", "/v1/tables/{table}/quarantine/drop", "drop rejected events"),
    route("GET", "/v1/sources", "the state of the sources; operators only"),
    route("POST", "/v1/sources/{name}/pause", "pause a source; operators only"),
    route("POST", "/v1/sources/{name}/resume", "resume a source; operators only"),
    route("GET", "/metrics", "metrics in the OpenMetrics format; operators only"),
    route("GET", "/healthz", "whether the process answers; no token needed"),
    route("GET", "/readyz", "whether requests can be served; no token needed"),
];

/// A page of the documentation.
pub(super) struct Doc {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) text: &'static str,
}

/// The pages that are served: those for users and operators of a running server.
pub(super) const DOCS: [Doc; 5] = [
    doc("http", "HTTP: sending events, receipts, freshness, errors, limits", include_str!("../../docs/http.md")),
    doc("tables", "tables that show the newest version of each row", include_str!("../../docs/tables.md")),
    doc("ingest", "how events come in: Kafka, transforms, guarantees", include_str!("../../docs/ingest.md")),
    doc("configuration", "every configuration key", include_str!("../../docs/configuration.md")),
    doc("architecture", "how the server works inside", include_str!("../../docs/architecture.md")),
];

/// The Content-Security-Policy of a page: it loads and runs nothing; the hash of the only stylesheet is listed.
static PAGE_POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(html_page::STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("the policy is ASCII without control characters")
});

/// The addresses of this server, as the caller can use them.
pub(super) struct Addresses {
    /// `http://host:port`
    pub(super) http: String,
    /// `grpc://host:port`, or `grpc+tls://` with TLS
    pub(super) flight: String,
    /// The URL for the Arrow Flight SQL JDBC driver; `TOKEN` is the placeholder for the token
    pub(super) jdbc: String,
}

/// `GET /`.
pub(super) async fn home(State(handler): State<Arc<HttpHandler>>, headers: HeaderMap) -> Response {
    let home = &handler.services.home;
    let addresses = Addresses::new(home, handler.config.listen, &headers);
    if wants_html(&headers) {
        html(html_page::home(&addresses, home.tables.as_deref()))
    } else {
        with_headers(Json(index(&addresses, home.tables.as_deref())))
    }
}

/// `GET /docs/{name}`.
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

impl Addresses {
    /// Derived from the host that the caller requested, or from the listen address if it named none.
    fn new(home: &Home, listen: SocketAddr, headers: &HeaderMap) -> Self {
        let asked = headers.get(HOST).and_then(|value| value.to_str().ok()).and_then(plain_authority);
        let http = asked.as_ref().map_or_else(|| format!("localhost:{}", listen.port()), Authority::to_string);
        let host = asked.as_ref().map_or("localhost", Authority::host);
        // Set by a proxy that terminates TLS. It only changes the text of the page, so it need not be trusted.
        let is_https = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let port = home.flight.port();
        let (scheme, encryption) = if home.flight_tls { ("grpc+tls", "true") } else { ("grpc", "false") };
        Self {
            http: format!("{}://{http}", if is_https { "https" } else { "http" }),
            flight: format!("{scheme}://{host}:{port}"),
            jdbc: format!("jdbc:arrow-flight-sql://{host}:{port}/?useEncryption={encryption}&token=TOKEN"),
        }
    }
}

/// A host with an optional port, in the characters of names and addresses. Anything else is not repeated in a response.
fn plain_authority(text: &str) -> Option<Authority> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    text.parse().ok().filter(|_| text.bytes().all(is_plain))
}

/// Whether the caller is a browser: it accepts HTML by name. The `*/*` of `curl` does not count.
fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("text/html"));
        let is_refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        is_html && !parts.any(is_refused)
    })
}

/// The home page as JSON.
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

/// A response that depends on the caller: caches must revalidate it, and browsers must not guess its type.
fn with_headers(answer: impl IntoResponse) -> Response {
    let headers = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
        (VARY, "accept, host, x-forwarded-proto"),
    ];
    (headers, answer).into_response()
}

const fn route(method: &'static str, path: &'static str, about: &'static str) -> Route {
    Route { method, path, about }
}

const fn doc(name: &'static str, about: &'static str, text: &'static str) -> Doc {
    Doc { name, about, text }
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

    #[test]
    fn addresses_follow_the_host_header() {
        let listen = "0.0.0.0:8080".parse().unwrap();
        let cases: [(&[(&'static str, &'static str)], bool, &str, &str); 8] = [
            (&[("host", "127.0.0.1:8080")], false, "http://127.0.0.1:8080", "grpc://127.0.0.1:8815"),
            (&[("host", "data.example.com")], true, "http://data.example.com", "grpc+tls://data.example.com:8815"),
            (&[("host", "[::1]:8080")], false, "http://[::1]:8080", "grpc://[::1]:8815"),
            (
                &[("host", "a.example"), ("x-forwarded-proto", "https")],
                false,
                "https://a.example",
                "grpc://a.example:8815",
            ),
            (&[("host", "\"><script>alert(1)</script>")], false, "http://localhost:8080", "grpc://localhost:8815"),
            (&[("host", "user@evil.example")], false, "http://localhost:8080", "grpc://localhost:8815"),
            (&[("host", "a'b")], false, "http://localhost:8080", "grpc://localhost:8815"),
            (&[], false, "http://localhost:8080", "grpc://localhost:8815"),
        ];
        for (list, flight_tls, http, flight) in cases {
            let home = Home { flight: "0.0.0.0:8815".parse().unwrap(), flight_tls, tables: None };
            let addresses = Addresses::new(&home, listen, &headers(list));
            assert_eq!((addresses.http.as_str(), addresses.flight.as_str()), (http, flight), "{list:?}");
            assert!(addresses.jdbc.contains(&format!("useEncryption={flight_tls}")), "{}", addresses.jdbc);
        }
    }

    #[test]
    fn every_route_is_listed() {
        let router = include_str!("mod.rs");
        let routed: Vec<&str> = router.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let mut listed: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
        listed.sort_unstable();
        // The route that panics exists only in tests.
        let mut sorted: Vec<&str> = routed.into_iter().filter(|path| *path != "/panics").collect();
        sorted.sort_unstable();
        assert_eq!(sorted, listed);
        let documented = DOCS[0].text;
        for Route { method, path, .. } in ROUTES {
            let is_documented = documented.contains(&format!("| `{method} {path}` |"));
            let is_grouped = path == "/v1/sources/{name}/resume";
            assert!(is_documented || is_grouped || path.ends_with("/pause"), "docs/http.md lists no `{method} {path}`");
        }
    }
}
