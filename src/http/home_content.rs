//! The content of the home page and of the documentation: the server's addresses, its routes and the documentation
//! pages.

use std::net::SocketAddr;

use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::uri::Authority;

/// The properties of this server that the home page shows.
#[derive(Debug, Clone)]
pub struct Home {
    /// The address of the Flight SQL endpoint.
    pub flight: SocketAddr,
    /// True if the Flight SQL endpoint uses TLS.
    pub flight_tls: bool,
    /// The names and descriptions of the tables, or `None` if `http.home_tables` is not set.
    pub tables: Option<Vec<(String, String)>>,
}

/// A route of the HTTP endpoint, as the home page lists it.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) about: &'static str,
}

/// All routes. A test ensures that this list matches the router.
pub(super) const ROUTES: [Route; 20] = [
    route("GET", "/", "this page"),
    route("GET", "/docs/{name}", "the documentation"),
    route("GET", "/v1/tables", "the tables and columns that the token can see"),
    route("POST", "/v1/tables/{table}/events", "send events"),
    route("GET", "/v1/tables/{table}/freshness", "the time up to which a table is complete"),
    route("GET", "/v1/quarantine", "count rejected events"),
    route("GET", "/v1/tables/{table}/quarantine", "list rejected events"),
    route("GET", "/v1/tables/{table}/quarantine/{id}", "show a rejected event"),
    route("POST", "/v1/tables/{table}/quarantine/replay", "send rejected events again"),
    route("POST", "/v1/tables/{table}/quarantine/{id}/replay", "send a corrected event in place of a rejected one"),
    route("POST", "/v1/tables/{table}/quarantine/drop", "drop rejected events"),
    route("GET", "/v1/sources", "the state of the sources; operators only"),
    route("POST", "/v1/sources/{name}/pause", "pause a source; operators only"),
    route("POST", "/v1/sources/{name}/resume", "resume a source; operators only"),
    route("GET", "/v1/maintenance", "the files of each table and the state of merges; operators only"),
    route("POST", "/v1/maintenance/pause", "pause the merges of this server; operators only"),
    route("POST", "/v1/maintenance/resume", "resume the merges of this server; operators only"),
    route("GET", "/metrics", "metrics in the OpenMetrics format; operators only"),
    route("GET", "/healthz", "liveness probe; no token needed"),
    route("GET", "/readyz", "readiness probe; no token needed"),
];

/// A page of the documentation.
pub(super) struct Doc {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) text: &'static str,
}

/// The documentation pages that the server serves. These pages are for users and operators of a running server.
pub(super) const DOCS: [Doc; 7] = [
    doc(
        "http",
        "the HTTP API: sending events, receipts, freshness, errors, limits",
        include_str!("../../docs/http.md"),
    ),
    doc("sql", "the SQL dialect and how it differs from PostgreSQL", include_str!("../../docs/sql.md")),
    doc(
        "tables",
        "tables that show the latest version of each row; lookup tables",
        include_str!("../../docs/tables.md"),
    ),
    doc("ingest", "how the server ingests events: Kafka, transforms, guarantees", include_str!("../../docs/ingest.md")),
    doc(
        "maintenance",
        "how files are merged, and what to do if merges fall behind",
        include_str!("../../docs/maintenance.md"),
    ),
    doc("configuration", "every configuration key", include_str!("../../docs/configuration.md")),
    doc("architecture", "how the server works internally", include_str!("../../docs/architecture.md")),
];

/// The addresses at which the caller can reach this server.
pub(super) struct Addresses {
    /// The URL of the HTTP endpoint: `http://host:port`, or `https://host:port` behind a proxy with TLS.
    pub(super) http: String,
    /// The URL of the Flight SQL endpoint: `grpc://host:port`, or `grpc+tls://host:port` with TLS.
    pub(super) flight: String,
    /// The URL for the Arrow Flight SQL JDBC driver, with `TOKEN` in place of the token.
    pub(super) jdbc: String,
}

impl Addresses {
    /// Derives the addresses from the `host` header. If the header is missing or contains unusual characters, the
    /// addresses consist of `localhost` and the port of `listen`.
    pub(super) fn new(home: &Home, listen: SocketAddr, headers: &HeaderMap) -> Self {
        let host_header = headers.get(HOST).and_then(|value| value.to_str().ok()).and_then(plain_authority);
        let http = host_header.as_ref().map_or_else(|| format!("localhost:{}", listen.port()), Authority::to_string);
        let host = host_header.as_ref().map_or("localhost", Authority::host);
        // A proxy that terminates TLS sets `x-forwarded-proto`. This header changes only the text of the page, so the
        // server need not trust its sender.
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

/// Parses a host with an optional port. Returns `None` if the text contains characters that do not occur in host names
/// or addresses. The server must not include such characters in a response.
fn plain_authority(text: &str) -> Option<Authority> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    text.parse().ok().filter(|_| text.bytes().all(is_plain))
}

const fn route(method: &'static str, path: &'static str, about: &'static str) -> Route {
    Route { method, path, about }
}

const fn doc(name: &'static str, about: &'static str, text: &'static str) -> Doc {
    Doc { name, about, text }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        list.iter().map(header).collect()
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
        // The router has the route `/panics` only in tests.
        let mut sorted: Vec<&str> = routed.into_iter().filter(|path| *path != "/panics").collect();
        sorted.sort_unstable();
        assert_eq!(sorted, listed);
        let documented = DOCS[0].text;
        for Route { method, path, .. } in ROUTES {
            let is_documented = documented.contains(&format!("| `{method} {path}` |"));
            let is_grouped = path.ends_with("/resume");
            assert!(
                is_documented || is_grouped || path.ends_with("/pause"),
                "docs/http.md does not list `{method} {path}`"
            );
        }
    }
}
