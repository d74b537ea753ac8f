//! Import cycles between the files of one module.
//!
//! The test finds the cycles in each module of `src`. A cycle is a group of files that import each other, directly or
//! through other files of the group (a strongly connected component). A file outside a cycle can be read, tested and
//! replaced alone, but a file in a cycle can be understood only together with the other files of the cycle.
//!
//! The files of a module are the files in its folder and in the folders inside it. If a `mod.rs` re-exports an item
//! (`pub(crate) use table::Table`), an import of the item counts as an import of the file that defines it. The imports
//! in a `mod.rs` itself do not count, because its purpose is to connect the files in its folder.
//!
//! **Invariant:** [`CYCLES`] can only shrink. The test fails if a cycle is new or has an additional file or import. It
//! also fails if a cycle has become smaller and its entry has not been updated.

use std::collections::{BTreeMap, BTreeSet};

use crate::source_tree::{File, paths, tree};

/// The existing cycles, each with its module, the number of imports inside the cycle, and its files. If this list is
/// out of date, the test prints the current list.
const CYCLES: &[(&str, usize, &[&str])] = &[];

/// An import cycle in one module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cycle {
    module: String,
    /// The number of imports between the files of the cycle.
    imports: usize,
    /// The files as paths relative to the folder of the module, without `.rs`.
    files: BTreeSet<String>,
}

/// The file of each module in the crate, keyed by the segments of the module's path (`query`, `scan`). For a `mod.rs`,
/// the inner map contains the imported names and the paths to which they refer.
type Modules<'a> = BTreeMap<Vec<String>, (&'a File, BTreeMap<String, Vec<String>>)>;

#[test]
fn files_of_a_module_import_in_one_direction() {
    let (found, listed) = (cycles(&tree()), listed());
    if let Some(problems) = compare(&found, &listed) {
        let entries: String = found.iter().map(Cycle::entry).collect();
        panic!(
            "files of one module import each other in a cycle: none of them can be understood, tested or replaced \
             alone\n\n{}\n\nthe current list:\n\n{entries}",
            problems.join("\n")
        );
    }
}

/// Returns the differences between the cycles found and the list, or `None` if there are none.
fn compare(found: &[Cycle], listed: &[Cycle]) -> Option<Vec<String>> {
    let mut problems = Vec::new();
    for cycle in found {
        let holds = |entry: &&Cycle| entry.module == cycle.module && entry.files.is_superset(&cycle.files);
        let names = cycle.names().join(", ");
        match listed.iter().find(holds) {
            None => problems.push(format!("{}: a new or larger cycle: {names}: remove an import", cycle.module)),
            Some(entry) if cycle.imports > entry.imports => {
                let (now, before) = (cycle.imports, entry.imports);
                problems.push(format!("{}: {now} imports inside a cycle, {before} are listed: {names}", cycle.module));
            }
            Some(_) => {}
        }
    }
    for entry in listed.iter().filter(|entry| !found.contains(entry)) {
        let is_worse = found.iter().any(|cycle| cycle.files.is_superset(&entry.files) && cycle.imports > entry.imports);
        if !is_worse {
            let names = entry.names().join(", ");
            problems.push(format!("{}: no longer a cycle as listed: {names}: update the list", entry.module));
        }
    }
    (!problems.is_empty()).then_some(problems)
}

fn listed() -> Vec<Cycle> {
    let cycle = |(module, imports, files): &(&str, usize, &[&str])| Cycle {
        module: (*module).to_owned(),
        imports: *imports,
        files: files.iter().map(|file| (*file).to_owned()).collect(),
    };
    CYCLES.iter().map(cycle).collect()
}

impl Cycle {
    fn names(&self) -> Vec<&str> {
        self.files.iter().map(String::as_str).collect()
    }

    /// Formats the cycle as an entry of [`CYCLES`].
    fn entry(&self) -> String {
        format!("    ({:?}, {}, &{:?}),\n", self.module, self.imports, self.names())
    }
}

/// Finds the cycles in all modules, sorted by module.
fn cycles(files: &[File]) -> Vec<Cycle> {
    let imports = imports(files);
    let mut cycles = BTreeSet::new();
    for (file, direct) in &imports {
        let back = |other: &&String| reach(&imports, other).contains(file);
        let mut group: BTreeSet<&String> = reach(&imports, file).into_iter().filter(back).collect();
        group.insert(file);
        if group.len() == 1 {
            continue;
        }
        debug_assert!(!direct.is_empty(), "a file in a cycle imports another file");
        let module = file.split('/').next().unwrap_or_default();
        let inside = |from: &String| imports[from].iter().filter(|to| group.contains(to)).count();
        cycles.insert(Cycle {
            module: module.to_owned(),
            imports: group.iter().map(|from| inside(from)).sum(),
            files: group.iter().map(|file| file[module.len() + 1..].to_owned()).collect(),
        });
    }
    cycles.into_iter().collect()
}

/// Returns all files that the file `from` imports, directly or through other files.
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

/// For every file, returns the files of the same module that it imports.
fn imports(files: &[File]) -> BTreeMap<String, BTreeSet<String>> {
    let modules = modules(files);
    let mut imports = BTreeMap::new();
    for (module, (file, _)) in modules.iter().filter(|(_, (file, _))| !is_root(file)) {
        let imported = paths(&file.shipped)
            .into_iter()
            .filter_map(|path| defining_module(&modules, absolute(&modules, module, &path.segments)?))
            .filter(|other| other != module && other.first() == module.first())
            .map(|other| name(&other));
        imports.insert(name(module), imported.collect());
    }
    imports
}

fn modules(files: &[File]) -> Modules<'_> {
    let shipped = files.iter().filter(|file| file.is_src() && !file.shipped.trim().is_empty());
    let mut modules: Modules<'_> = shipped.map(|file| (segments(&file.path), (file, BTreeMap::new()))).collect();
    for module in modules.keys().cloned().collect::<Vec<_>>() {
        let file = modules[&module].0;
        if is_root(file) {
            let found = paths(&file.shipped).into_iter().filter_map(|path| {
                let target = absolute(&modules, &module, &path.segments)?;
                Some((path.import?, target))
            });
            let found = found.collect();
            modules.entry(module).and_modify(|(_, imports)| *imports = found);
        }
    }
    modules
}

/// Returns true if the file is a `mod.rs`.
fn is_root(file: &File) -> bool {
    file.path.ends_with("/mod.rs") || file.path == "src/lib.rs"
}

/// Returns the path segments of a file's module. The result is empty for `lib.rs`.
fn segments(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    inside.split('/').filter(|segment| *segment != "lib").map(str::to_owned).collect()
}

fn name(module: &[String]) -> String {
    module.join("/")
}

/// Resolves a path to a path from the crate root. Returns `None` if the path does not refer to an item in the crate.
fn absolute(modules: &Modules<'_>, module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut from = module.to_vec();
    let ups = path.iter().take_while(|segment| *segment == "super").count();
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
    Some(from.into_iter().chain(rest.iter().filter(|segment| *segment != "self").cloned()).collect())
}

/// Finds the module that defines the item at a path from the crate root.
fn defining_module(modules: &Modules<'_>, mut path: Vec<String>) -> Option<Vec<String>> {
    // Follow at most eight re-exports of a name, because re-exports can form a cycle.
    for _ in 0..8 {
        let length = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let reexported = rest.first().and_then(|name| modules[module].1.get(name));
        match reexported {
            Some(target) if *target != path => path = [target.as_slice(), &rest[1..]].concat(),
            _ => return Some(module.to_vec()),
        }
    }
    None
}

#[test]
fn cycles_are_found() {
    let cycles_of = |sources: &[(&str, &str)]| -> Vec<String> {
        let files: Vec<File> = sources.iter().map(|(path, text)| File::new(path, text)).collect();
        cycles(&files)
            .iter()
            .map(|cycle| format!("{} {} {}", cycle.module, cycle.imports, cycle.names().join(" ")))
            .collect()
    };
    let root = ("src/lake/mod.rs", "mod table; mod log; pub(crate) use table::{Table, Rows as Lines}; pub struct Own;");
    for (other, expected) in [
        // Imports that count: direct, through a re-export of mod.rs, through a renamed re-export, from the crate root,
        // and without `use`.
        ("use super::table::Table;", Some("lake 2 log table")),
        ("use super::Table;", Some("lake 2 log table")),
        ("use super::{Own, Lines};", Some("lake 2 log table")),
        ("use crate::lake::Table as T;", Some("lake 2 log table")),
        ("fn f() -> super::Table {}", Some("lake 2 log table")),
        // Imports that do not count: an item that mod.rs defines, a glob, another module's item, an import in a test,
        // and a comment.
        ("use super::Own;", None),
        ("use super::*;", None),
        ("use crate::query::Table;", None),
        ("#[cfg(test)] mod tests { use super::super::Table; }", None),
        ("// use super::Table;", None),
    ] {
        let sources = [root, ("src/lake/table.rs", "use super::log::Entry;"), ("src/lake/log.rs", other)];
        assert_eq!(cycles_of(&sources), expected.into_iter().collect::<Vec<_>>(), "{other}");
    }
    // A cycle of three files in two folders of a module.
    let sources = [
        ("src/ingest/mod.rs", "mod kafka; mod group_commit; pub use kafka::Source;"),
        ("src/ingest/kafka/mod.rs", "mod client; mod source; pub use source::Source;"),
        ("src/ingest/kafka/client.rs", "use super::super::group_commit::Committer;"),
        ("src/ingest/kafka/source.rs", "use super::client::Client;"),
        ("src/ingest/group_commit/mod.rs", "mod committer; pub(super) use committer::Committer;"),
        ("src/ingest/group_commit/committer.rs", "use super::super::Source;"),
    ];
    assert_eq!(cycles_of(&sources), ["ingest 3 group_commit/committer kafka/client kafka/source"]);
}

#[test]
fn the_list_of_cycles_can_only_shrink() {
    let cycle = |imports: usize, files: &[&str]| Cycle {
        module: "lake".to_owned(),
        imports,
        files: files.iter().map(|file| (*file).to_owned()).collect(),
    };
    let listed = [cycle(3, &["a", "b", "c"])];
    for (found, problem) in [
        (vec![cycle(3, &["a", "b", "c"])], None),
        (vec![cycle(4, &["a", "b", "c"])], Some("4 imports inside a cycle, 3 are listed")),
        (vec![cycle(4, &["a", "b", "c", "d"])], Some("a new or larger cycle: a, b, c, d")),
        (vec![cycle(3, &["a", "b", "c"]), cycle(2, &["d", "e"])], Some("a new or larger cycle: d, e")),
        (vec![cycle(2, &["a", "b"])], Some("no longer a cycle as listed: a, b, c: update")),
        (vec![], Some("no longer a cycle as listed: a, b, c: update")),
    ] {
        let problems = compare(&found, &listed);
        match problem {
            None => assert_eq!(problems, None),
            Some(problem) => {
                let problems = problems.unwrap_or_default();
                assert!(problems.len() == 1 && problems[0].contains(problem), "expected {problem:?}, got {problems:?}");
            }
        }
    }
}
