//! Converts Markdown to HTML. This converter supports the subset of Markdown that the documentation of this project
//! uses.
//!
//! The input is a page of `docs/`, which is compiled into the program. The converter renders headings (with anchors),
//! paragraphs, lists, tables, code, emphasis and links. All other syntax is copied to the page as plain text.
//!
//! **Invariant:** every character of the text is escaped, and links have only the targets that the caller allows.

use super::html_escape::{escape, push};

/// A function that takes the target of a Markdown link and returns a URL. If it returns `None`, the page shows only the
/// text of the link.
type Links<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Renders a page. `links` returns the URL for each link target.
pub(super) fn render(text: &str, links: Links<'_>) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut html = String::with_capacity(text.len() * 2);
    let mut rest = &lines[..];
    while let Some(line) = rest.first() {
        let used = if line.trim().is_empty() {
            1
        } else if line.starts_with("<!--") {
            until(rest, |line| line.contains("-->")) + 1
        } else if line.starts_with("```") {
            code(&mut html, rest)
        } else if let Some((level, title)) = heading(line) {
            let (id, title) = (slug(title), inline(title, links));
            push(&mut html, format_args!("<h{level} id=\"{}\">{title}</h{level}>\n", escape(&id)));
            1
        } else if line.starts_with('|') {
            table(&mut html, rest, links)
        } else if item(line).is_some() {
            list(&mut html, rest, links)
        } else {
            paragraph(&mut html, rest, links)
        };
        rest = &rest[used.clamp(1, rest.len())..];
    }
    html
}

/// Returns the index of the first line for which `ends` is true, or the number of lines if there is none.
fn until(lines: &[&str], ends: impl Fn(&str) -> bool) -> usize {
    lines.iter().position(|line| ends(line)).unwrap_or(lines.len())
}

/// Renders a code block: the lines between fences, unchanged. Returns the number of lines in the block, including the
/// fences.
fn code(html: &mut String, lines: &[&str]) -> usize {
    let inside = until(&lines[1..], |line| line.starts_with("```"));
    let text = lines[1..=inside].join("\n");
    push(html, format_args!("<pre>{}</pre>\n", escape(&text)));
    inside + 2
}

/// Renders a table. The first row is the header, and the second row is the separator line.
fn table(html: &mut String, lines: &[&str], links: Links<'_>) -> usize {
    let rows = until(lines, |line| !line.starts_with('|'));
    html.push_str("<div class=\"wide\"><table>\n");
    for (index, line) in lines[..rows].iter().enumerate().filter(|(index, _)| *index != 1) {
        let cell = if index == 0 { "th" } else { "td" };
        html.push_str("<tr>");
        for text in cells(line) {
            push(html, format_args!("<{cell}>{}</{cell}>", inline(text.trim(), links)));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>\n");
    rows
}

/// Returns the cells of a table row. A vertical bar after a backslash is part of the cell's text.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|');
    let line = line.strip_suffix('|').unwrap_or(line);
    line.replace("\\|", "\0").split('|').map(|cell| cell.replace('\0', "|")).collect()
}

/// Renders a list. An indented line continues the previous list item.
fn list(html: &mut String, lines: &[&str], links: Links<'_>) -> usize {
    let is_ordered = !lines[0].starts_with("- ");
    let kind = if is_ordered { "ol" } else { "ul" };
    push(html, format_args!("<{kind}>\n"));
    let mut used = 0;
    while let Some(first) = lines.get(used).and_then(|line| item(line)) {
        let more = until(&lines[used + 1..], |line| !line.starts_with("  "));
        let text: Vec<&str> =
            std::iter::once(first).chain(lines[used + 1..=used + more].iter().map(|line| line.trim())).collect();
        push(html, format_args!("<li>{}</li>\n", inline(&text.join(" "), links)));
        used += 1 + more;
    }
    push(html, format_args!("</{kind}>\n"));
    used
}

fn paragraph(html: &mut String, lines: &[&str], links: Links<'_>) -> usize {
    let starts_other = |line: &str| {
        line.trim().is_empty()
            || line.starts_with("```")
            || line.starts_with('|')
            || heading(line).is_some()
            || item(line).is_some()
    };
    let used = 1 + until(&lines[1..], starts_other);
    push(html, format_args!("<p>{}</p>\n", inline(&lines[..used].join(" "), links)));
    used
}

/// Returns the level and the text of a heading.
fn heading(line: &str) -> Option<(usize, &str)> {
    let title = line.trim_start_matches('#');
    let level = line.len() - title.len();
    title.strip_prefix(' ').filter(|_| (1..=4).contains(&level)).map(|title| (level, title.trim()))
}

/// Returns the text of a list item without its marker, which is a hyphen or a number with a period.
fn item(line: &str) -> Option<&str> {
    line.strip_prefix("- ").or_else(|| {
        let (number, text) = line.split_once(". ")?;
        (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
    })
}

/// Returns the anchor that GitHub would generate for a heading.
fn slug(title: &str) -> String {
    let letters = title.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    letters.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Renders text that may contain code, emphasis, links and line breaks.
fn inline(text: &str, links: Links<'_>) -> String {
    let mut html = String::with_capacity(text.len() + text.len() / 4);
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[', '<']) {
        html.push_str(&escape(&rest[..at]));
        rest = &rest[at..];
        let used = inline_element(&mut html, rest, links).unwrap_or_else(|| {
            html.push_str(&escape(&rest[..1]));
            1
        });
        rest = &rest[used..];
    }
    html.push_str(&escape(rest));
    html
}

/// Renders the inline element at the start of `text`, and returns the number of bytes that the element occupies in
/// `text`. Returns `None` if `text` does not start with an inline element.
fn inline_element(html: &mut String, text: &str, links: Links<'_>) -> Option<usize> {
    if let Some(code) = enclosed(text, "`", "`") {
        push(html, format_args!("<code>{}</code>", escape(code)));
        return Some(code.len() + 2);
    }
    if let Some(strong) = enclosed(text, "**", "**") {
        push(html, format_args!("<strong>{}</strong>", inline(strong, links)));
        return Some(strong.len() + 4);
    }
    if let Some(words) = enclosed(text, "*", "*").filter(|words| !words.starts_with([' ', '*'])) {
        push(html, format_args!("<em>{}</em>", inline(words, links)));
        return Some(words.len() + 2);
    }
    if text.starts_with("<br>") {
        html.push_str("<br>");
        return Some("<br>".len());
    }
    let words = enclosed(text, "[", "](")?;
    let target = enclosed(&text[words.len() + 2..], "(", ")")?;
    match links(target) {
        Some(address) => push(html, format_args!("<a href=\"{}\">{}</a>", escape(&address), inline(words, links))),
        None => html.push_str(&inline(words, links)),
    }
    Some(words.len() + target.len() + 4)
}

/// If `text` starts with `open`, returns the part of `text` between `open` and the next `close`. Returns `None` if
/// `text` does not start with `open`, if `close` is missing, or if the part is empty.
fn enclosed<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let inside = text.strip_prefix(open)?;
    inside.find(close).filter(|end| *end > 0).map(|end| &inside[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        render(text, &|target| target.strip_suffix(".md").map(|name| format!("/docs/{name}")))
    }

    #[test]
    fn supported_syntax_is_rendered() {
        let cases = [
            ("<!-- made\nby a test -->\n\n# A `b` c, d", "<h1 id=\"a-b-c-d\">A <code>b</code> c, d</h1>\n"),
            ("one\ntwo *three* **four**\n\nfive", "<p>one two <em>three</em> <strong>four</strong></p>\n<p>five</p>\n"),
            (
                "- a\n  b\n- c\n\n1. d\n2. e",
                "<ul>\n<li>a b</li>\n<li>c</li>\n</ul>\n<ol>\n<li>d</li>\n<li>e</li>\n</ol>\n",
            ),
            ("```sh\n# <a>\n\nb | c\n```\nd", "<pre># &lt;a&gt;\n\nb | c</pre>\n<p>d</p>\n"),
            (
                "| a | b |\n|---|---|\n| `x \\| y` | z<br>w |\n",
                "<div class=\"wide\"><table>\n<tr><th>a</th><th>b</th></tr>\n<tr><td><code>x | y</code></td><td>z<br>w</td></tr>\n\
                 </table></div>\n",
            ),
            ("see [the *page*](x.md), [it](y.rs)", "<p>see <a href=\"/docs/x\">the <em>page</em></a>, it</p>\n"),
        ];
        for (text, expected) in cases {
            assert_eq!(rendered(text), expected, "{text}");
        }
    }

    #[test]
    fn unfinished_and_hostile_text_is_escaped() {
        let cases = [
            ("a * b ` c [d] (e) **", "<p>a * b ` c [d] (e) **</p>\n"),
            ("<script>\"&'", "<p>&lt;script&gt;&quot;&amp;&#39;</p>\n"),
            ("``", "<p>``</p>\n"),
            ("[x](\"><b>.md)", "<p><a href=\"/docs/&quot;&gt;&lt;b&gt;\">x</a></p>\n"),
            ("#five", "<p>#five</p>\n"),
            ("```\nopen", "<pre>open</pre>\n"),
            ("```", "<pre></pre>\n"),
            ("|", "<div class=\"wide\"><table>\n<tr><th></th></tr>\n</table></div>\n"),
            ("<!-- open", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(rendered(text), expected, "{text}");
        }
    }
}
