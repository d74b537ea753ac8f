//! The input for the rules in `tidy.rs`: the files in this repository, the code in them without comments and strings,
//! and the paths in this code.
//!
//! [`tree`] reads the repository's folder and returns a [`File`] for each file. A [`File`] contains the text of a file,
//! and its code, split into shipped code and test code. Instead of a full Rust parser, the module recognizes only
//! comments, strings, attributes, braces and `use` trees.

use std::fmt;
use std::fs;

/// A text file of the repository, with its code, its shipped code and its test code.
#[derive(Debug)]
pub(crate) struct File {
    /// The path relative to the root of the repository, with `/` as the separator.
    pub(crate) path: String,
    /// The content of the file.
    pub(crate) text: String,
    /// The text of a Rust file in which comments and the contents of strings are replaced with spaces. For other files,
    /// an empty string.
    pub(crate) code: String,
    /// The code in which tests are replaced with spaces.
    pub(crate) shipped: String,
    /// The code in which everything except tests is replaced with spaces.
    pub(crate) tests: String,
}

/// A violation of a rule in a file.
#[derive(Debug)]
pub(crate) struct Violation {
    line: usize,
    what: String,
}

/// A path in code (`a::b::c`). Each item in a `use` group has its own path.
#[derive(Debug, PartialEq)]
pub(crate) struct Path {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
    /// The name that the path introduces in the file, if a `use` imports it.
    pub(crate) import: Option<String>,
}

/// Folders that are not checked, because the files in them are generated.
const GENERATED: [&str; 7] = [".git", ".cargo", ".cache", "target", "demo-data", "node_modules", "__pycache__"];
/// The extensions of the files that are checked.
const EXTENSIONS: [&str; 16] = [
    "rs", "toml", "md", "proto", "py", "sh", "java", "xml", "json", "txt", "yml", "slt", "snap", "sql", "css",
    "service",
];
/// The names of checked files that have no extension.
const NAMES: [&str; 4] = ["Makefile", "run", "Containerfile", ".gitignore"];

/// Returns every text file in the repository, sorted by path.
pub(crate) fn tree() -> Vec<File> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let kind = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !GENERATED.contains(&name.as_str()) {
                folders.push(path);
            } else if path.is_file() && (EXTENSIONS.contains(&kind.as_str()) || NAMES.contains(&name.as_str())) {
                let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let path = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                files.push(File::new(&path, &text));
            }
        }
    }
    // A file is test code if its `mod` item has `#[cfg(test)]`. The files in the folder of that module are also test
    // code.
    let tests: Vec<String> = files.iter().flat_map(|file| test_modules(&file.path, &file.code)).collect();
    let test = |file: File| if is_of(&tests, &file.path) { File::test(&file.path, &file.text) } else { file };
    let mut files: Vec<File> = files.into_iter().map(test).collect();
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

impl File {
    /// Creates a file. In `src`, all code is shipped except for items under `#[cfg(test)]`. Outside `src`, all code is
    /// test code.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self::read(path, text, if path.starts_with("src/") { without_tests } else { blank })
    }

    /// Creates a file of test code, regardless of its path.
    pub(crate) fn test(path: &str, text: &str) -> Self {
        Self::read(path, text, blank)
    }

    fn read(path: &str, text: &str, ship: impl Fn(&str) -> String) -> Self {
        let code = if path.ends_with(".rs") { code(text) } else { String::new() };
        let shipped = ship(&code);
        let rest =
            code.chars().zip(shipped.chars()).map(|(all, kept)| if all == kept && all != '\n' { ' ' } else { all });
        Self { path: path.to_owned(), text: text.to_owned(), tests: rest.collect(), shipped, code }
    }

    /// Returns true if the file is part of the library or the binary.
    pub(crate) fn is_src(&self) -> bool {
        self.path.starts_with("src/") && self.is_rust()
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Returns the top-level module to which the file belongs, or `None` for `lib.rs`, `main.rs` and files outside
    /// `src`.
    pub(crate) fn module(&self) -> Option<String> {
        let inside = self.path.strip_prefix("src/")?;
        let name = inside.split('/').next()?.trim_end_matches(".rs");
        (name != "lib" && name != "main").then(|| name.to_owned())
    }
}

impl Violation {
    pub(crate) fn new(line: usize, what: String) -> Self {
        Self { line, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.what)
    }
}

impl Path {
    /// Returns true if the path begins with the segments of `start` (`a::b`).
    pub(crate) fn starts_with(&self, start: &str) -> bool {
        let mut segments = self.segments.iter();
        start.split("::").all(|segment| segments.next().is_some_and(|own| own == segment))
    }

    /// Returns true if the path ends with the segments of `end` (`b::c`).
    pub(crate) fn ends_with(&self, end: &str) -> bool {
        let mut segments = self.segments.iter().rev();
        end.rsplit("::").all(|segment| segments.next().is_some_and(|own| own == segment))
    }

    /// If the path begins with the segments of `start` and has more segments, returns its line and the next segment.
    pub(crate) fn after(&self, start: &[&str]) -> Option<(usize, String)> {
        let begins =
            self.segments.len() > start.len() && self.segments.iter().zip(start).all(|(own, segment)| own == segment);
        begins.then(|| (self.line, self.segments[start.len()].clone()))
    }
}

/// Finds every path of two or more segments, and every import.
pub(crate) fn paths(code: &str) -> Vec<Path> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (line, token) = tokens[at];
        // `use<'a>` in a type is not an import.
        if token == "use" && tokens.get(at + 1).is_some_and(|(_, next)| *next != "<") {
            at = split_use(&tokens, at + 1, &[], &mut found);
        } else if is_name(token) {
            let mut segments = vec![token.to_owned()];
            while at + 2 < tokens.len() && tokens[at + 1].1 == "::" && is_name(tokens[at + 2].1) {
                segments.push(tokens[at + 2].1.to_owned());
                at += 2;
            }
            if segments.len() > 1 {
                found.push(Path { line, segments, import: None });
            }
        }
        at += 1;
    }
    found
}

/// Splits the `use` tree at `at` into paths. Each path is prefixed with the segments of `prefix`. Returns the position
/// at which the `use` tree ends.
fn split_use(tokens: &[(usize, &str)], mut at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    let (mut segments, mut alias) = (prefix.to_vec(), None);
    let token = |at: usize| tokens.get(at).map_or(";", |(_, token)| *token);
    loop {
        match token(at) {
            "," | "}" | ";" => break,
            "::" => at += 1,
            "as" => {
                alias = Some(token(at + 1).to_owned());
                at += 2;
            }
            "{" => {
                at += 1;
                while !matches!(token(at), "}" | ";") {
                    at = split_use(tokens, at, &segments, found);
                    at += usize::from(token(at) == ",");
                }
                return at + 1;
            }
            name => {
                segments.push(name.to_owned());
                at += 1;
            }
        }
    }
    if segments.len() > prefix.len() {
        // `use a::{self}` imports `a`.
        let last = segments.iter().rev().find(|segment| *segment != "self");
        let import = alias.or_else(|| last.cloned());
        found.push(Path { line: tokens[at.min(tokens.len()) - 1].0, segments, import });
    }
    at
}

/// Splits code into tokens, each with its line. A token is a name, `::`, or any other single character.
pub(crate) fn tokens(code: &str) -> Vec<(usize, &str)> {
    let (mut tokens, mut line, mut at) = (Vec::new(), 1, 0);
    while let Some(letter) = code[at..].chars().next() {
        let rest = &code[at..];
        let length = if is_letter(letter) {
            rest.find(|next| !is_letter(next)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            letter.len_utf8()
        };
        line += usize::from(letter == '\n');
        if !letter.is_whitespace() {
            tokens.push((line, &rest[..length]));
        }
        at += length;
    }
    tokens
}

fn is_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Replaces everything except newlines with spaces.
fn blank(text: &str) -> String {
    text.chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }).collect()
}

/// Replaces comments and the contents of string and character literals with spaces.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let skipped = match rest.as_bytes()[0] {
            b'/' => comment(rest),
            b'"' | b'r' | b'b' | b'c' => string(rest, code.ends_with(is_letter)),
            b'\'' => character(rest),
            _ => None,
        };
        match skipped {
            Some(length) => code.push_str(&blank(&rest[..length])),
            None => code.extend(rest.chars().next()),
        }
        at += skipped.unwrap_or_else(|| rest.chars().next().map_or(1, char::len_utf8));
    }
    code
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    rest.strip_prefix("/*")?;
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        match tail {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
    Some(rest.len())
}

fn string(rest: &str, is_inside_name: bool) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let tail = rest.strip_prefix(prefix).unwrap_or_default();
        let is_raw = prefix.ends_with('r') && tail.trim_start_matches('#').starts_with('"');
        is_raw || tail.starts_with('"')
    })?;
    if is_inside_name && !prefix.is_empty() {
        return None;
    }
    let tail = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = tail.len() - tail.trim_start_matches('#').len();
        let end = format!("\"{}", "#".repeat(hashes));
        let inside = prefix.len() + hashes + 1;
        return Some(rest[inside..].find(&end).map_or(rest.len(), |length| inside + length + end.len()));
    }
    let mut is_escaped = false;
    for (index, letter) in tail.char_indices().skip(1) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return Some(prefix.len() + index + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// Returns the length of the character literal at the start of `rest`, or `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        let first = escape.chars().next()?.len_utf8();
        return escape[first..].find('\'').map(|length| 2 + first + length + 1);
    }
    let length = inside.chars().next()?.len_utf8();
    inside[length..].starts_with('\'').then_some(length + 2)
}

/// The attribute of an item that is compiled for tests only.
const CFG_TEST: &str = "#[cfg(test)]";

/// Returns the modules with `#[cfg(test)]` on their `mod` items in this file, as paths without `.rs` or `/mod.rs`.
fn test_modules(path: &str, code: &str) -> Vec<String> {
    // The modules of `a.rs` are in the folder `a`. The modules of `mod.rs`, `lib.rs` and `main.rs` are in the same
    // folder as the file.
    let (parent, file) = path.rsplit_once('/').unwrap_or(("", path));
    let is_own = ["mod.rs", "lib.rs", "main.rs"].contains(&file);
    let folder = if is_own { parent } else { path.strip_suffix(".rs").unwrap_or(path) };
    let items = code.split(CFG_TEST).skip(1).map(|item| tokens(&item[..item_length(item, 0)]));
    let names = items.filter_map(|item| match item[..] {
        [.., (_, "mod"), (_, name), (_, ";")] => Some(format!("{folder}/{name}")),
        _ => None,
    });
    names.collect()
}

/// Returns true if the file contains one of `modules` or is in the folder of one of them.
fn is_of(modules: &[String], path: &str) -> bool {
    let after =
        |module: &String| path.strip_prefix(module.as_str()).is_some_and(|end| end == ".rs" || end.starts_with('/'));
    modules.iter().any(after)
}

/// Replaces every item under `#[cfg(test)]` with spaces.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(CFG_TEST) {
        let item = &rest[start..];
        let length = item_length(item, CFG_TEST.len());
        kept.push_str(&rest[..start]);
        kept.push_str(&blank(&item[..length]));
        rest = &item[length..];
    }
    kept + rest
}

/// Returns the length of an item, which ends with a `;` or its closing brace. The search for this end begins at `from`.
pub(crate) fn item_length(item: &str, from: usize) -> usize {
    let mut depth = 0;
    for (index, letter) in item.char_indices().filter(|(index, _)| *index >= from) {
        match letter {
            '{' => depth += 1,
            '}' if depth == 1 => return index + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    item.len()
}

#[test]
fn paths_are_found() {
    let found = |text: &str| -> Vec<String> {
        paths(&code(text)).iter().map(|path| format!("{}:{}", path.line, path.segments.join("::"))).collect()
    };
    let cases: [(&str, &[&str]); 9] = [
        ("use a;", &["1:a"]),
        ("use a::b as c; d::e()", &["1:a::b", "1:d::e"]),
        ("use a::{b, c::{d, e as f}, g};\nh::i", &["1:a::b", "1:a::c::d", "1:a::c::e", "1:a::g", "2:h::i"]),
        ("use {a::b, c};", &["1:a::b", "1:c"]),
        ("use a::{self, b::*};", &["1:a::self", "1:a::b::*"]),
        ("let x: a::B<c::D> = e::<f::G>();", &["1:a::B", "1:c::D", "1:f::G"]),
        ("// a::b\n/* c::d /* e::f */ g::h */ i::j", &["2:i::j"]),
        (r##"("a::b\"c::d", r#"e::f"g::h"#, b'"', '\'', 'x', i::j::<'l>())"##, &["1:i::j"]),
        ("#[derive(a::B)] struct C;", &["1:a::B"]),
    ];
    for (text, expected) in cases {
        assert_eq!(found(text), expected, "{text}");
    }
}

#[test]
fn imports_have_their_names() {
    let found: Vec<_> = paths("use a::{b as c, d::{self, E}}; f::g();").into_iter().map(|path| path.import).collect();
    assert_eq!(found, [Some("c".to_owned()), Some("d".to_owned()), Some("E".to_owned()), None]);
}

#[test]
fn test_code_is_separated() {
    let file = File::new(
        "src/a/b.rs",
        "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}\n#[cfg(test)] mod d;\nfn e() {}",
    );
    for name in ["a()", "c()", "e()"] {
        assert!(file.shipped.contains(name) && !file.tests.contains(name), "{name}: {file:?}");
    }
    assert!(file.tests.contains("b()") && !file.shipped.contains("b()"), "{file:?}");
    let modules = test_modules(&file.path, &file.code);
    assert_eq!(modules, ["src/a/b/d"]);
    assert_eq!(test_modules("src/a/mod.rs", &file.code), ["src/a/d"]);
    for (path, is_test) in [
        ("src/a/b/d.rs", true),
        ("src/a/b/d/mod.rs", true),
        ("src/a/b/d/e.rs", true),
        ("src/a/b/de.rs", false),
        ("src/a/b.rs", false),
        ("src/a/d.rs", false),
    ] {
        assert_eq!(is_of(&modules, path), is_test, "{path}");
    }
    let whole = File::test("src/a/d.rs", "fn f() {}");
    assert!(whole.tests.contains("f()") && !whole.shipped.contains("f()"), "{whole:?}");
}
