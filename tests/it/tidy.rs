//! The rules of the house that no compiler and no lint checks. Each reads the source tree and says its reason when broken.
//!
//! In: the files of this repository. Out: every fault of every rule at once, with file and line.
//!
//! **Invariant:** a rule is proved before it is believed: each finds a fault in its bad samples and none in its good ones,
//! so that none can rot into passing always.

mod cycles;
mod test_code;
mod text;

use self::text::LINES_MAX;
use crate::source::{Fault, File, paths, tree};

/// One rule of the house.
struct Rule {
    name: &'static str,
    /// What goes wrong without it: printed with every fault.
    reason: &'static str,
    find: fn(&File) -> Vec<Fault>,
    /// Samples (path, text) with a fault.
    bad: &'static [(&'static str, &'static str)],
    /// Samples without one, close to the bad ones.
    good: &'static [(&'static str, &'static str)],
}

/// The modules from left to right: each imports only what stands before it.
const ORDER: [&str; 17] = [
    "error",
    "clock",
    "config",
    "telemetry",
    "supervise",
    "outbound",
    "listener",
    "contract",
    "tenancy",
    "lake",
    "transform",
    "ingest",
    "query",
    "flight",
    "http",
    "server",
    "cli",
];

/// What has one home: the start of a path, and where it may stand.
const FENCES: [(&str, &str); 21] = [
    ("deltalake", "src/lake/"),
    ("deltalake_core", "src/lake/"),
    ("rdkafka", "src/ingest/kafka/"),
    ("apache_avro", "src/contract/message/avro"),
    ("prost_reflect", "src/contract/"),
    ("jsonwebtoken", "src/tenancy/token.rs"),
    ("axum", "src/http/"),
    ("utoipa", "src/http/"),
    ("tonic", "src/flight/"),
    ("tonic_health", "src/flight/"),
    ("arrow_flight", "src/flight/"),
    ("prometheus_client", "src/telemetry/"),
    ("reqwest", "src/outbound/"),
    ("backon", "src/outbound/"),
    ("rustls_native_certs", "src/outbound/"),
    ("clap", "src/cli/"),
    ("clap_complete", "src/cli/"),
    ("indicatif", "src/cli/"),
    ("rustyline", "src/cli/"),
    ("std::env", "src/config/"),
    ("crate::query::OperatorQuery", "src/server.rs"),
];

/// What has a few homes, today: the start of a path, and where it may be used. It can only shrink.
const SHARED: [(&str, &[&str]); 5] = [
    (
        "datafusion",
        &[
            "src/query/",
            "src/transform/",
            "src/flight/catalog.rs",
            "src/flight/sqlinfo.rs",
            "src/flight/xdbc.rs",
            "src/ingest/dedupe/",
        ],
    ),
    (
        "object_store",
        &["src/lake/", "src/query/request/engine.rs", "src/query/scan/tenant_table.rs", "src/query/operator_query.rs"],
    ),
    ("prost", &["src/contract/message", "src/flight/"]),
    ("prost_types", &["src/contract/message", "src/flight/statement.rs"]),
    ("protox", &["src/contract/"]),
];

/// Ends of paths that read the wall clock.
const CLOCKS: [&str; 3] = ["SystemTime::now", "Utc::now", "Local::now"];

/// Folders inside a module, one concept each. Every other file is in the folder of its module.
const FOLDERS: [&str; 18] = [
    "src/contract/columns/",
    "src/contract/decode/",
    "src/contract/message/",
    "src/contract/schema/",
    "src/ingest/dedupe/",
    "src/ingest/kafka/",
    "src/ingest/quarantine/",
    "src/ingest/schemas/",
    "src/ingest/sim/",
    "src/ingest/source/",
    "src/ingest/write/",
    "src/lake/log/",
    "src/lake/read/",
    "src/lake/store/",
    "src/lake/write/",
    "src/query/functions/",
    "src/query/request/",
    "src/query/scan/",
];

const RULES: [Rule; 13] = [
    Rule {
        name: "module order",
        reason: "modules stand in an order and import only from the left: without it everything knows everything, and no \
                 part can be understood, tested or replaced alone",
        find: order,
        bad: &[
            ("src/lake/log.rs", "use crate::query::Engine;"),
            ("src/lake/log.rs", "use crate::{clock::Clock, http};"),
            ("src/lake/log.rs", "fn f() { crate::cli::main() }"),
            ("src/lake/mod.rs", "use super::query::Engine;"),
            ("src/lake/log.rs", "use super::super::query::Engine;"),
            ("src/ingest/kafka/mod.rs", "use super::super::query::Engine;"),
            ("src/ingest/kafka/client.rs", "use super::super::super::query::Engine;"),
            ("src/error.rs", "use crate::clock;"),
            ("src/error.rs", "use super::clock;"),
        ],
        good: &[
            ("src/query/scan.rs", "use crate::lake::Table; use crate::query::Engine; // not crate::http"),
            ("src/query/scan.rs", "use super::engine; const TEXT: &str = \"crate::http\";"),
            ("src/ingest/kafka/client.rs", "use super::super::query::Engine; // a module of ingest by that name"),
            ("src/lib.rs", "use crate::cli;"),
        ],
    },
    Rule {
        name: "order of lib.rs",
        reason: "src/lib.rs is the table of contents: its modules stand in the order of the house, none is missing from it",
        find: contents,
        bad: &[("src/lib.rs", "pub mod clock; pub mod error;"), ("src/lib.rs", "pub mod helpers;")],
        good: &[("src/lib.rs", "pub mod error; pub mod clock;")],
    },
    Rule {
        name: "fences",
        reason: "each great dependency has one home: elsewhere it would spread, and could never be changed again",
        find: fences,
        bad: &[
            ("src/query/scan.rs", "use deltalake_core::DeltaTable;"),
            ("src/tenancy/keys.rs", "fn f(key: &jsonwebtoken::DecodingKey) {}"),
            ("src/lake/log.rs", "use std::{env, fs};"),
            ("src/server.rs", "#[derive(clap::Parser)] struct Args;"),
            ("src/ingest/source/message_batch.rs", "use rdkafka::message::BorrowedMessage;"),
            ("src/ingest/kafka_client.rs", "use rdkafka::client::ClientContext;"),
            ("src/flight/statement.rs", "use crate::query::{Session, OperatorQuery};"),
            ("src/flight/stream.rs", "use datafusion::sql::parser::DFParser;"),
            ("src/ingest/submit.rs", "fn f(store: &dyn object_store::ObjectStore) {}"),
            ("src/contract/decode/protobuf.rs", "use prost::encoding::decode_varint;"),
            ("src/cli/client.rs", "fn f(client: &reqwest::Client) {}"),
        ],
        good: &[
            ("src/query/scan.rs", "use datafusion::physical_plan::ExecutionPlan;"),
            ("src/contract/message/dynamic_protobuf.rs", "use prost::Message;"),
            ("src/lake/log.rs", "use deltalake_core::DeltaTable; // and not axum::Router"),
            ("src/server.rs", "use crate::http::tonic;"),
            ("src/ingest/kafka/client.rs", "use rdkafka::client::ClientContext;"),
        ],
    },
    Rule {
        name: "one clock",
        reason: "the wall clock is an argument: what reads it by itself cannot be tested at midnight or in the year 2038",
        find: clocks,
        bad: &[
            ("src/lake/log.rs", "fn f() { std::time::SystemTime::now(); }"),
            ("src/lake/log.rs", "use chrono::Utc; fn f() { Utc::now(); }"),
        ],
        good: &[
            ("src/clock.rs", "fn f() { SystemTime::now(); }"),
            ("src/lake/log.rs", "fn f() { Instant::now(); clock.now(); }"),
        ],
    },
    Rule {
        name: "opening words",
        reason: "a file says first what goes in, what comes out, what always holds and what it refuses",
        find: text::opening,
        bad: &[("src/lake/log.rs", "use std::fs;"), ("src/lake/log.rs", "// a comment"), ("src/lake/log.rs", "//!\n")],
        good: &[("src/lake/log.rs", "//! The log."), ("src/lib.rs", "#![doc = include_str!(\"x.md\")]")],
    },
    Rule {
        name: "length",
        reason: "a file of more than 500 lines holds a second idea: give it a file and a name of its own",
        find: text::length,
        bad: &[("src/lake/log.rs", LONG)],
        good: &[("src/lake/log.rs", "//! Short.\n")],
    },
    Rule {
        name: "two floors",
        reason: "a third floor is a second idea: give it a name of its own beside the others, or among the few folders that \
                 are named here, each with an idea that takes several files",
        find: floors,
        bad: &[
            ("src/lake/log/entry/line.rs", ""),
            ("src/ingest/doors/http.rs", ""),
            ("src/ingest/kafka/client/settings.rs", ""),
        ],
        good: &[
            ("src/lake/log.rs", ""),
            ("src/clock.rs", ""),
            ("src/ingest/kafka/client.rs", ""),
            ("tests/a/b/c.rs", ""),
        ],
    },
    Rule {
        name: "no panics by design",
        reason: "a request must not end in a panic: return an error, or `expect` what proves that it cannot happen",
        find: panics,
        bad: &[
            ("src/lake/log.rs", "fn f() { g().unwrap(); }"),
            ("src/lake/log.rs", "fn f() {\n    g()\n        .unwrap ( )\n}"),
            ("src/lake/log.rs", "fn f() { todo!() }"),
            ("src/lake/log.rs", "fn f() { unimplemented!(\"later\") }"),
            ("src/lake/log.rs", "fn f() { dbg!(1); }"),
        ],
        good: &[
            ("src/lake/log.rs", "fn f() { g().unwrap_or_default(); } // .unwrap() todo!()"),
            ("src/lake/log.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { h().unwrap(); } }"),
            ("tests/it/lake.rs", "fn f() { g().unwrap(); }"),
        ],
    },
    Rule {
        name: "no sleeps in tests",
        reason: "a sleep is a guess: too short on a busy machine, too long on every other; wait for the event itself",
        find: test_code::sleeps,
        bad: &[
            ("src/lake/log.rs", "#[cfg(test)] mod tests { async fn f() { tokio::time::sleep(t).await; } }"),
            ("tests/it/lake.rs", "use std::thread::sleep;"),
        ],
        good: &[
            ("src/lake/log.rs", "async fn f() { tokio::time::sleep(t).await; }"),
            ("tests/it/lake.rs", "fn sleepy() {}"),
        ],
    },
    Rule {
        name: "no early end of a test",
        reason: "a test that returns early passes without its assertions: play the least of it instead, or fail",
        find: test_code::leaves,
        bad: &[
            (
                "src/lake/log.rs",
                "#[cfg(test)] mod tests {\n#[test]\nfn f() {\n let Some(x) = y() else { return };\n}\n}",
            ),
            ("tests/it/lake.rs", "#[tokio::test(flavor = \"multi_thread\")]\nasync fn f() { if g() { return; } h() }"),
        ],
        good: &[
            ("tests/it/lake.rs", "#[test]\nfn f() { let x = || { return 3; }; } fn g() { return; }"),
            ("src/lake/log.rs", "fn f() { return; }"),
        ],
    },
    Rule {
        name: "drawings",
        reason: "a folder's mod.rs draws its data flow and names what always holds: who cannot draw it in ten lines should \
                 redesign it",
        find: text::drawings,
        bad: &[
            ("src/lake/mod.rs", "//! **Invariant:** yes.\n"),
            ("src/lake/mod.rs", "//! ```text\n//! a -> b\n//! ```\n"),
        ],
        good: &[
            ("src/lake/mod.rs", "//! ```text\n//! a -> b\n//! ```\n//! **Invariant:** yes.\n"),
            ("src/lake/log.rs", ""),
        ],
    },
    Rule {
        name: "words",
        reason: "the repository speaks to its readers: nothing unfinished, nothing of one machine",
        find: text::words,
        bad: &[
            ("docs/a.md", concat!("see /wo", "rk/design.md")),
            ("src/lake/log.rs", concat!("// TO", "DO: later")),
            ("src/lake/log.rs", concat!("#[al", "low(dead_code)]")),
        ],
        good: &[("docs/a.md", "the workshop at the root, to do")],
    },
    Rule {
        name: "whitespace",
        reason: "text looks the same in every editor and every diff: spaces, no spaces at the end, one newline at the end",
        find: text::whitespace,
        bad: &[
            ("docs/a.md", "a\tb\n"),
            ("docs/a.md", "a \nb\n"),
            ("docs/a.md", "a\r\nb\n"),
            ("docs/a.md", "a"),
            ("docs/a.md", "a\n\n"),
        ],
        good: &[("docs/a.md", "a\n\nb\n"), ("Makefile", "a:\n\tb\n"), ("docs/empty.md", "")],
    },
];

#[test]
fn the_house_is_tidy() {
    let files = tree();
    assert!(files.iter().filter(|file| file.is_src()).count() > 50, "the source tree was not found");
    let mut told = Vec::new();
    for rule in &RULES {
        let faults = files
            .iter()
            .flat_map(|file| (rule.find)(file).into_iter().map(|fault| format!("\n  {}:{fault}", file.path)));
        let faults: String = faults.collect();
        if !faults.is_empty() {
            told.push(format!("{}: {}{faults}", rule.name, rule.reason));
        }
    }
    assert!(told.is_empty(), "the house is not tidy\n\n{}\n", told.join("\n\n"));
}

#[test]
fn every_rule_finds_what_it_looks_for() {
    for rule in &RULES {
        for (path, text) in rule.bad {
            assert!(!(rule.find)(&File::new(path, text)).is_empty(), "`{}` passes {path}: {text}", rule.name);
        }
        for (path, text) in rule.good {
            let faults = (rule.find)(&File::new(path, text));
            assert!(faults.is_empty(), "`{}` finds {faults:?} in {path}: {text}", rule.name);
        }
    }
}

/// 501 lines.
const LONG: &str = {
    const BYTES: [u8; LINES_MAX + 1] = [b'\n'; LINES_MAX + 1];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!("newlines are UTF-8"),
    }
};

fn order(file: &File) -> Vec<Fault> {
    let Some(own) = file.module().and_then(|name| position(&name)) else { return Vec::new() };
    // As many steps up as lead to the crate: a `mod.rs` stands for its folder.
    let depth = file.path.matches('/').count() - usize::from(file.path.ends_with("/mod.rs"));
    let up = vec!["super"; depth];
    let by_crate = paths(&file.code).into_iter().filter_map(|path| path.after(&["crate"]));
    let by_super = paths(&file.shipped).into_iter().filter_map(|path| path.after(&up));
    let foreign = |(line, name): (usize, String)| {
        let other = position(&name).filter(|other| *other > own)?;
        Some(Fault::new(line, format!("`{}` must not know `{}`", ORDER[own], ORDER[other])))
    };
    by_crate.chain(by_super).filter_map(foreign).collect()
}

fn contents(file: &File) -> Vec<Fault> {
    if file.path != "src/lib.rs" {
        return Vec::new();
    }
    let declared: Vec<&str> =
        file.code.split(';').filter_map(|item| item.rsplit_once("mod ")).map(|(_, name)| name.trim()).collect();
    let mut expected: Vec<&str> = ORDER.into_iter().filter(|name| declared.contains(name)).collect();
    expected.extend(declared.iter().filter(|name| position(name).is_none()));
    let unknown = declared.iter().filter(|name| position(name).is_none());
    let mut faults: Vec<Fault> =
        unknown.map(|name| Fault::new(1, format!("`{name}` has no place in the order of the house"))).collect();
    if declared != expected {
        faults.push(Fault::new(1, format!("the order is {}", expected.join(", "))));
    }
    faults
}

fn fences(file: &File) -> Vec<Fault> {
    if !file.is_src() {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for path in paths(&file.shipped) {
        for (fenced, homes) in homes() {
            if path.starts_with(fenced) && !homes.iter().any(|home| file.path.starts_with(home)) {
                faults.push(Fault::new(path.line, format!("`{fenced}` belongs to {}", homes.join(", "))));
            }
        }
    }
    faults
}

/// All that is fenced, with its homes.
fn homes() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    FENCES.iter().map(|(fenced, home)| (*fenced, std::slice::from_ref(home))).chain(SHARED)
}

fn clocks(file: &File) -> Vec<Fault> {
    if !file.is_src() || file.path == "src/clock.rs" {
        return Vec::new();
    }
    let reads = |path: &crate::source::Path| CLOCKS.iter().any(|clock| path.ends_with(clock));
    paths(&file.shipped)
        .iter()
        .filter(|path| reads(path))
        .map(|path| Fault::new(path.line, "reads the wall clock: take a `Clock`".to_owned()))
        .collect()
}

fn floors(file: &File) -> Vec<Fault> {
    let folder = FOLDERS.iter().find_map(|folder| file.path.strip_prefix(folder));
    let floors = file.path.matches('/').count();
    if !file.is_src() || floors <= 2 || folder.is_some_and(|name| !name.contains('/')) {
        return Vec::new();
    }
    vec![Fault::new(1, format!("stands on floor {floors}"))]
}

fn panics(file: &File) -> Vec<Fault> {
    if !file.is_src() {
        return Vec::new();
    }
    // Without spaces, and with a mark where each line began: `.unwrap ( )` on a line of its own is found as well.
    let mut faults = Vec::new();
    let mut seen = String::new();
    for (index, line) in file.shipped.lines().enumerate() {
        let before = seen.len();
        seen.extend(line.chars().filter(|letter| !letter.is_whitespace()));
        for word in [".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
            let start = before.saturating_sub(word.len() - 1);
            if seen.get(start..).unwrap_or(&seen).contains(word) {
                faults.push(Fault::new(index + 1, format!("`{word}`")));
            }
        }
    }
    faults
}

fn position(module: &str) -> Option<usize> {
    ORDER.iter().position(|name| *name == module)
}
