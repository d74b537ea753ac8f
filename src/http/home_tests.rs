//! Tests of the home page and the documentation. They cover the format that browsers and other clients get, and the
//! data that these pages must not reveal.

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::json;

use super::home_content::{DOCS, ROUTES};
use super::html_page::STYLE;
use super::testing::{HttpTestServer, json_response};
use crate::config::HttpConfig;
use crate::ingest::testing::{TABLE, limits};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// Requests a page as a browser does, and returns its headers and text.
async fn page(server: &HttpTestServer, path: &str) -> (HeaderMap, String) {
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(BROWSER))]);
    let response = server.request(Method::GET, path, headers, "").await;
    assert_eq!(response.status(), 200, "{path}");
    (response.headers().clone(), response.text().await.unwrap())
}

#[tokio::test]
async fn browsers_get_html_without_scripts_and_external_files() {
    let server = HttpTestServer::open().await;
    let docs: Vec<String> = DOCS.iter().map(|doc| format!("/docs/{}", doc.name)).collect();
    for path in ["/"].into_iter().chain(docs.iter().map(String::as_str)) {
        let (headers, text) = page(&server, path).await;
        assert_eq!(headers[CONTENT_TYPE], "text/html; charset=utf-8", "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["referrer-policy"], "no-referrer", "{path}");
        assert!(headers.contains_key("x-request-id") && headers["vary"].to_str().unwrap().contains("accept"));
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
        assert!(text.starts_with("<!doctype html>") && text.contains(&format!("<style>{STYLE}</style>")), "{path}");
        for loaded in ["<script", "<img", "<iframe", "<form", "@import", "src=", "style=", "onclick"] {
            let head = text.split("<article>").next().unwrap();
            assert!(!head.contains(loaded), "{path} has `{loaded}`");
        }
    }
    let (_, home) = page(&server, "/").await;
    let host = server.address.split(':').next().unwrap();
    assert!(
        home.contains(&format!("jdbc:arrow-flight-sql://{host}:8815/?useEncryption=false&amp;token=TOKEN")),
        "{home}"
    );
    assert!(home.contains(&format!("<code>http://{}</code>", server.address)), "{home}");
    for route in ROUTES {
        assert!(home.contains(&format!("<code>{}</code>", route.path)), "{}", route.path);
    }
    for path in docs {
        assert!(home.contains(&format!("<a href=\"{path}\">")), "{path}");
    }
    server.close().await;
}

#[tokio::test]
async fn programs_get_json_and_markdown() {
    let server = HttpTestServer::open().await;
    let (status, index) = json_response(server.get("/", "").await).await;
    assert_eq!((status, &index["service"]), (200, &json!("glasshouse")), "{index}");
    let host = server.address.split(':').next().unwrap();
    assert_eq!(index["flight_sql"]["url"], format!("grpc://{host}:8815"));
    assert_eq!(index["http"]["url"], format!("http://{}", server.address));
    assert_eq!(index["http"]["routes"].as_array().unwrap().len(), ROUTES.len());
    for url in index["docs"].as_array().unwrap() {
        let path = url.as_str().unwrap().strip_prefix(&format!("http://{}", server.address)).unwrap();
        let doc = server.get(path, "").await;
        assert_eq!(doc.status(), 200, "{path}");
        assert_eq!(doc.headers()[CONTENT_TYPE], "text/markdown; charset=utf-8", "{path}");
        assert!(doc.text().await.unwrap().starts_with("# ") || path.ends_with("/configuration"), "{path}");
    }
    for (path, expected) in [("/docs/htp", 404), ("/docs/%ff", 400), ("/docs", 404), ("/favicon.ico", 404)] {
        assert_eq!(json_response(server.get(path, "").await).await.0, expected, "{path}");
    }
    let (_, problem) = json_response(server.get("/docs/htp", "").await).await;
    assert!(problem["error"]["message"].as_str().unwrap().contains("did you mean `http`?"), "{problem}");
    server.close().await;
}

#[tokio::test]
async fn table_names_are_shown_only_if_configured() {
    for home_tables in [false, true] {
        let server = HttpTestServer::with(limits(), HttpConfig { home_tables, ..HttpConfig::default() }).await;
        let (_, home) = page(&server, "/").await;
        assert_eq!(home.contains(&format!("<code>{TABLE}</code>")), home_tables, "{home}");
        assert_eq!(home.contains("Calls &lt;of&gt; a tenant"), home_tables, "{home}");
        let (_, index) = json_response(server.get("/", "").await).await;
        let tables = json!([{ "name": TABLE, "description": "Calls <of> a tenant" }]);
        assert_eq!(index.get("tables"), home_tables.then_some(&tables));
        server.close().await;
    }
}
