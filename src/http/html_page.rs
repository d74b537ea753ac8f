//! Renders the home page and the documentation as HTML.
//!
//! A page is a complete document that contains no scripts and loads no other files.
//!
//! **Invariant:** every value is escaped where it is inserted into the page. The functions in this file have no access
//! to the request, and receive all values as arguments.

use super::home_content::{Addresses, DOCS, ROUTES, Route};
use super::html_escape::{escape, push};
use super::markdown;

/// The stylesheet. Every page must embed it unchanged, because the Content-Security-Policy allows only a stylesheet
/// with its hash.
pub(super) const STYLE: &str = include_str!("home.css");

/// The logo: a greenhouse with glass panes.
const LOGO: &str = r#"<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linejoin="round" aria-hidden="true"><path d="M3 11 12 3l9 8v10H3z"/><path d="M3 16h18M3 11h18M12 3v18"/></svg>"#;
/// The icon for the browser tab: the logo.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24' fill='none' \
                    stroke='%230b8a8f' stroke-width='2' stroke-linejoin='round'%3E%3Cpath d='M3 11 12 3l9 8v10H3zM3 \
                    16h18M3 11h18M12 3v18'/%3E%3C/svg%3E";

/// Renders the home page.
pub(super) fn home(addresses: &Addresses, tables: Option<&[(String, String)]>) -> String {
    let [http, flight, jdbc] = [&addresses.http, &addresses.flight, &addresses.jdbc].map(|text| escape(text));
    let mut body = format!(
        r#"<header>{LOGO}<div><h1>Glasshouse</h1><p>The server is running. It answers SQL queries over Arrow Flight and accepts events over HTTP and Arrow Flight.</p></div></header>
<main>
<section><h2>Endpoints</h2>
<dl>
<dt>Flight SQL</dt><dd><code>{flight}</code></dd>
<dt>JDBC</dt><dd><code>{jdbc}</code></dd>
<dt>HTTP</dt><dd><code>{http}</code></dd>
</dl>
<p class="muted">Every request for data needs a token in the header <code>Authorization: Bearer TOKEN</code>. The token determines which rows you see. If a tool asks for a user name and a password, enter any user name and use the token as the password. Behind a proxy, the addresses may be different. If they do not work, ask your operator.</p>
</section>
"#
    );
    push_tables(&mut body, &http, &flight, tables);
    body.push_str("<section><h2>HTTP routes</h2>\n<table>\n");
    for Route { method, path, about } in ROUTES {
        let path = escape(path);
        push(
            &mut body,
            format_args!(
                "<tr><td class=\"method\"><code>{method}</code></td><td class=\"path\"><code>{path}</code></td><td>{}</td></tr>\n",
                escape(about)
            ),
        );
    }
    body.push_str("</table>\n</section>\n<section><h2>Documentation</h2>\n<table>\n");
    for doc in DOCS {
        let (name, about) = (escape(doc.name), escape(doc.about));
        push(
            &mut body,
            format_args!("<tr><td class=\"path\"><a href=\"/docs/{name}\">{name}</a></td><td>{about}</td></tr>\n"),
        );
    }
    body.push_str("</table>\n</section>\n</main>\n");
    html_document("Glasshouse", &body)
}

/// Renders a page of the documentation.
pub(super) fn document(name: &str, text: &str) -> String {
    let name = escape(name);
    let body = format!(
        "<header>{LOGO}<div><h1>Glasshouse</h1><p><a href=\"/\">Home</a> / {name}</p></div></header>\n<main><article>\n{}\
         </article></main>\n",
        markdown::render(text, &link)
    );
    html_document(&format!("{name} · Glasshouse"), &body)
}

/// Returns the URL for a link in the documentation. Returns `None` unless the link leads to an anchor on the same page
/// or to a page that the server has.
fn link(target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let page = match file {
        "" => String::new(),
        file => format!("/docs/{}", DOCS.iter().find(|doc| file.strip_suffix(".md") == Some(doc.name))?.name),
    };
    Some(anchor.map_or_else(|| page.clone(), |anchor| format!("{page}#{anchor}")))
}

/// Adds example commands that list tables and columns. If the operator publishes the list of tables, adds this list
/// too.
fn push_tables(body: &mut String, http: &str, flight: &str, tables: Option<&[(String, String)]>) {
    body.push_str("<section><h2>Tables</h2>\n");
    let mut statement = "show tables".to_owned();
    if let Some([(first, _), ..]) = tables {
        statement = format!("describe {}", escape(first));
        body.push_str("<table>\n");
        for (name, description) in tables.unwrap_or_default() {
            let (name, description) = (escape(name), escape(description));
            push(body, format_args!("<tr><td class=\"path\"><code>{name}</code></td><td>{description}</td></tr>\n"));
        }
        body.push_str("</table>\n<p class=\"muted\">To show the columns that your token can read:</p>\n");
    } else {
        body.push_str("<p class=\"muted\">Your token determines which tables you see. To list them:</p>\n");
    }
    push(
        body,
        format_args!(
            "<pre>curl -H \"Authorization: Bearer $TOKEN\" {http}/v1/tables</pre>\n\
             <pre>glasshouse query --url {flight} --token \"$TOKEN\" '{statement}'</pre>\n</section>\n"
        ),
    );
}

/// Returns a complete HTML document around `body`. The caller must have escaped `title`.
fn html_document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"{ICON}\">\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTACK: &str = "</td><script>alert('&\"')</script>";

    #[test]
    fn values_are_escaped_wherever_they_are_shown() {
        let addresses = Addresses { http: ATTACK.into(), flight: ATTACK.into(), jdbc: ATTACK.into() };
        let tables = [(ATTACK.to_owned(), ATTACK.to_owned())];
        for page in [home(&addresses, Some(&tables)), home(&addresses, None), document(ATTACK, ATTACK)] {
            assert!(!page.contains("<script") && !page.contains("</td><s"), "{page}");
            assert!(page.contains("&lt;/td&gt;&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"), "{page}");
        }
    }

    #[test]
    fn documentation_links_point_to_existing_anchors() {
        let pages: Vec<String> = DOCS.iter().map(|doc| document(doc.name, doc.text)).collect();
        for (doc, page) in DOCS.iter().zip(&pages) {
            for target in page.split("<a href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
                let other = DOCS.iter().position(|other| path == format!("/docs/{}", other.name));
                let linked = if path.is_empty() { page } else { other.map_or(page, |other| &pages[other]) };
                assert!(path.is_empty() || path == "/" || other.is_some(), "{}: {target}", doc.name);
                assert!(anchor.is_empty() || linked.contains(&format!(" id=\"{anchor}\"")), "{}: {target}", doc.name);
            }
        }
        assert_eq!((link("../glasshouse.toml"), link("https://example.com/http.md")), (None, None));
    }

    #[test]
    fn the_stylesheet_cannot_end_its_element() {
        assert!(!STYLE.contains("</") && !STYLE.contains("@import") && !STYLE.contains("url("));
    }
}
