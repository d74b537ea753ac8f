//! Import cycles between the files of one module.
//!
//! In: the files of `src`. Out: the knots of each module: groups of files that all import each other, directly or through others
//! of the group. A file outside a knot can be read, tested and replaced alone; a knot can only be read as a whole.
//!
//! A module's files are those of its folder and of the folders inside it. An import of an item that a `mod.rs` only passes on
//! (`pub(crate) use table::Table`) leads to the file that defines the item. A `mod.rs` ties its own files together, which is its
//! purpose: what it imports does not count, so that nothing leads through it.
//!
//! **Invariant:** [`KNOTS`] can only shrink: a new knot, another file in one, or another import inside one fails the test. So
//! does an entry that is larger than the knot that is left of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{File, paths, tree};

/// Today's knots: the module, how many imports are inside the knot, and its files. When this list is not true, the test prints
/// the one that is.
const KNOTS: &[(&str, usize, &[&str])] = &[
    ("cli", 2, &["chunks", "ingest"]),
    ("config", 4, &["oauth", "registry", "sources"]),
    ("contract", 2, &["columns/column_builder", "columns/text_builder"]),
    ("contract", 2, &["decode/arrow_batch", "decode/cast"]),
    (
        "contract",
        16,
        &[
            "schema/declare",
            "schema/fields",
            "schema/latest",
            "schema/proto",
            "schema/quarantine_resolution",
            "schema/table",
        ],
    ),
    ("flight", 6, &["catalog", "keys", "sqlinfo", "xdbc"]),
    ("ingest", 5, &["kafka/client", "kafka/session", "kafka/source"]),
    ("lake", 2, &["write/parquet_file", "write/sort"]),
    ("lake", 8, &["log/commit", "read/event_lookup", "read/file_keys", "read/row_reader", "table"]),
    (
        "query",
        15,
        &[
            "functions/freshness",
            "request/catalog",
            "request/engine",
            "request/plan_cache",
            "request/result_stream",
            "request/session",
            "scan/newest_rows",
        ],
    ),
    ("telemetry", 6, &["metrics", "query", "source", "transform"]),
    ("tenancy", 2, &["jwks", "keys"]),
    ("transform", 4, &["fetch", "lookup", "lookup_file"]),
];

/// One knot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Knot {
    module: String,
    /// Imports from one of its files to another.
    imports: usize,
    /// Below the folder of the module, without `.rs`.
    files: BTreeSet<String>,
}

/// Each module of the crate by its steps (`query`, `scan`), and what its `mod.rs` imports: the name and where it leads.
type Modules<'a> = BTreeMap<Vec<String>, (&'a File, BTreeMap<String, Vec<String>>)>;

#[test]
fn files_of_a_module_import_in_one_direction() {
    let (found, listed) = (knots(&tree()), listed());
    if let Some(faults) = compare(&found, &listed) {
        let entries: String = found.iter().map(Knot::entry).collect();
        panic!(
            "files of one module import each other in a circle: none of them can be understood, tested or replaced \
             alone\n\n{}\n\nthe list that is true:\n\n{entries}",
            faults.join("\n")
        );
    }
}

/// What is wrong with the list, if anything is.
fn compare(found: &[Knot], listed: &[Knot]) -> Option<Vec<String>> {
    let mut faults = Vec::new();
    for knot in found {
        let holds = |entry: &&Knot| entry.module == knot.module && entry.files.is_superset(&knot.files);
        let names = knot.names().join(", ");
        match listed.iter().find(holds) {
            None => faults.push(format!("{}: a new knot, or a larger one: {names}: cut an import", knot.module)),
            Some(entry) if knot.imports > entry.imports => {
                let (now, before) = (knot.imports, entry.imports);
                faults.push(format!("{}: {now} imports inside a knot, {before} are listed: {names}", knot.module));
            }
            Some(_) => {}
        }
    }
    for entry in listed.iter().filter(|entry| !found.contains(entry)) {
        let is_worse = found.iter().any(|knot| knot.files.is_superset(&entry.files) && knot.imports > entry.imports);
        if !is_worse {
            let names = entry.names().join(", ");
            faults.push(format!("{}: no longer there as listed: {names}: remove it from the list", entry.module));
        }
    }
    (!faults.is_empty()).then_some(faults)
}

fn listed() -> Vec<Knot> {
    let knot = |(module, imports, files): &(&str, usize, &[&str])| Knot {
        module: (*module).to_owned(),
        imports: *imports,
        files: files.iter().map(|file| (*file).to_owned()).collect(),
    };
    KNOTS.iter().map(knot).collect()
}

impl Knot {
    fn names(&self) -> Vec<&str> {
        self.files.iter().map(String::as_str).collect()
    }

    /// Its entry in [`KNOTS`].
    fn entry(&self) -> String {
        format!("    ({:?}, {}, &{:?}),\n", self.module, self.imports, self.names())
    }
}

/// The knots of every module, in order.
fn knots(files: &[File]) -> Vec<Knot> {
    let imports = imports(files);
    let mut knots = BTreeSet::new();
    for (file, direct) in &imports {
        let back = |other: &&String| reach(&imports, other).contains(file);
        let mut group: BTreeSet<&String> = reach(&imports, file).into_iter().filter(back).collect();
        group.insert(file);
        if group.len() == 1 {
            continue;
        }
        debug_assert!(!direct.is_empty(), "a file of a knot imports something");
        let module = file.split('/').next().unwrap_or_default();
        let inside = |from: &String| imports[from].iter().filter(|to| group.contains(to)).count();
        knots.insert(Knot {
            module: module.to_owned(),
            imports: group.iter().map(|from| inside(from)).sum(),
            files: group.iter().map(|file| file[module.len() + 1..].to_owned()).collect(),
        });
    }
    knots.into_iter().collect()
}

/// Every file that a file leads to.
fn reach<'a>(imports: &'a BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<&'a String> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        for to in imports.get(file).into_iter().flatten() {
            if seen.insert(to) {
                next.push(to);
            }
        }
    }
    seen
}

/// Which file of a module imports from which others of the same module.
fn imports(files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules(files);
    let mut imports = BTreeMap::new();
    for (module, (file, _)) in modules.iter().filter(|(_, (file, _))| !is_root(file)) {
        let homes = paths(&file.shipped)
            .into_iter()
            .filter_map(|path| home(&modules, absolute(&modules, module, &path.steps)?))
            .filter(|home| home != module && home.first() == module.first())
            .map(|home| name(&home));
        imports.insert(name(module), homes.collect());
    }
    imports
}

fn modules(files: &[File]) -> Modules<'_> {
    let shipped = files.iter().filter(|file| file.is_src() && !file.shipped.trim().is_empty());
    let mut modules: Modules<'_> = shipped.map(|file| (steps(&file.path), (file, BTreeMap::new()))).collect();
    for module in modules.keys().cloned().collect::<Vec<_>>() {
        let file = modules[&module].0;
        if is_root(file) {
            let found = paths(&file.shipped).into_iter().filter_map(|path| {
                let leads = absolute(&modules, &module, &path.steps)?;
                Some((path.import?, leads))
            });
            let found = found.collect();
            modules.entry(module).and_modify(|(_, imports)| *imports = found);
        }
    }
    modules
}

/// Whether it stands for its folder.
fn is_root(file: &File) -> bool {
    file.path.ends_with("/mod.rs") || file.path == "src/lib.rs"
}

/// The steps of a file's module: none for `lib.rs`.
fn steps(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    inside.split('/').filter(|step| *step != "lib").map(str::to_owned).collect()
}

fn name(module: &[String]) -> String {
    module.join("/")
}

/// A path from the crate's root; none when it leads out of the crate.
fn absolute(modules: &Modules<'_>, module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut from = module.to_vec();
    let ups = path.iter().take_while(|step| *step == "super").count();
    let rest = match path[0].as_str() {
        "crate" => {
            from.clear();
            &path[1..]
        }
        "self" => &path[1..],
        "super" => {
            from.truncate(module.len().checked_sub(ups)?);
            &path[ups..]
        }
        first => {
            let child = [module, &[first.to_owned()]].concat();
            modules.contains_key(&child).then_some(path)?
        }
    };
    Some(from.into_iter().chain(rest.iter().filter(|step| *step != "self").cloned()).collect())
}

/// The module of the file that defines what a path from the root leads to.
fn home(modules: &Modules<'_>, mut path: Vec<String>) -> Option<Vec<String>> {
    // A name may be passed on several times, though not for ever.
    for _ in 0..8 {
        let length = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let passed_on = rest.first().and_then(|name| modules[module].1.get(name));
        match passed_on {
            Some(leads) if *leads != path => path = [leads.as_slice(), &rest[1..]].concat(),
            _ => return Some(module.to_vec()),
        }
    }
    None
}

#[test]
fn knots_are_found() {
    let knots_of = |sources: &[(&str, &str)]| -> Vec<String> {
        let files: Vec<File> = sources.iter().map(|(path, text)| File::new(path, text)).collect();
        knots(&files)
            .iter()
            .map(|knot| format!("{} {} {}", knot.module, knot.imports, knot.names().join(" ")))
            .collect()
    };
    let root = ("src/lake/mod.rs", "mod table; mod log; pub(crate) use table::{Table, Rows as Lines}; pub struct Own;");
    for (other, expected) in [
        // Directly, through a name that mod.rs passes on, by a renamed one, from the crate's root, and without `use`.
        ("use super::table::Table;", Some("lake 2 log table")),
        ("use super::Table;", Some("lake 2 log table")),
        ("use super::{Own, Lines};", Some("lake 2 log table")),
        ("use crate::lake::Table as T;", Some("lake 2 log table")),
        ("fn f() -> super::Table {}", Some("lake 2 log table")),
        // What mod.rs defines itself, another module's, a test's, and what no code says.
        ("use super::Own;", None),
        ("use super::*;", None),
        ("use crate::query::Table;", None),
        ("#[cfg(test)] mod tests { use super::super::Table; }", None),
        ("// use super::Table;", None),
    ] {
        let sources = [root, ("src/lake/table.rs", "use super::log::Entry;"), ("src/lake/log.rs", other)];
        assert_eq!(knots_of(&sources), expected.into_iter().collect::<Vec<_>>(), "{other}");
    }
    // Folders inside a module: over three files, and over two folders.
    let sources = [
        ("src/ingest/mod.rs", "mod kafka; mod write; pub use kafka::Source;"),
        ("src/ingest/kafka/mod.rs", "mod client; mod source; pub use source::Source;"),
        ("src/ingest/kafka/client.rs", "use super::super::write::Committer;"),
        ("src/ingest/kafka/source.rs", "use super::client::Client;"),
        ("src/ingest/write/mod.rs", "mod committer; pub(super) use committer::Committer;"),
        ("src/ingest/write/committer.rs", "use super::super::Source;"),
    ];
    assert_eq!(knots_of(&sources), ["ingest 3 kafka/client kafka/source write/committer"]);
}

#[test]
fn the_list_can_only_shrink() {
    let knot = |imports: usize, files: &[&str]| Knot {
        module: "lake".to_owned(),
        imports,
        files: files.iter().map(|file| (*file).to_owned()).collect(),
    };
    let listed = [knot(3, &["a", "b", "c"])];
    for (found, fault) in [
        (vec![knot(3, &["a", "b", "c"])], None),
        (vec![knot(4, &["a", "b", "c"])], Some("4 imports inside a knot, 3 are listed")),
        (vec![knot(4, &["a", "b", "c", "d"])], Some("a new knot, or a larger one: a, b, c, d")),
        (vec![knot(3, &["a", "b", "c"]), knot(2, &["d", "e"])], Some("a new knot, or a larger one: d, e")),
        (vec![knot(2, &["a", "b"])], Some("no longer there as listed: a, b, c: remove it")),
        (vec![], Some("no longer there as listed: a, b, c: remove it")),
    ] {
        let faults = compare(&found, &listed);
        match fault {
            None => assert_eq!(faults, None),
            Some(fault) => {
                let faults = faults.unwrap_or_default();
                assert!(faults.len() == 1 && faults[0].contains(fault), "{fault:?} is in {faults:?}");
            }
        }
    }
}
