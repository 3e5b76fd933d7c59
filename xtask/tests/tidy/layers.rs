//! The table under "Layers" in ARCHITECTURE.md is what `Cargo.toml` may do:
//!
//! | crate | kind | may depend on |
//!
//! A crate of kind `pure` does no I/O: it may use no crate that does.

use crate::{assert_none, read, root};
use cargo_metadata::{DependencyKind, Package};
use std::collections::{BTreeMap, BTreeSet};
use xtask::test_programs::packages_of;

/// Runtimes, sockets, system calls, clocks and kernel objects.
const NOT_PURE: [&str; 10] = [
    "aya",
    "axum",
    "hyper",
    "libc",
    "nix",
    "notify",
    "rtnetlink",
    "socket2",
    "tempfile",
    "tokio",
];
/// Crates that are built apart from the workspace.
const APART: [&str; 2] = ["ebpf/programs/Cargo.toml", "fuzz/Cargo.toml"];

struct Row {
    kind: String,
    allowed: BTreeSet<String>,
}

#[test]
fn crates_depend_only_on_what_the_layer_table_allows() {
    let table = table(&read("ARCHITECTURE.md"));
    let packages = packages();
    let ours: BTreeSet<_> = packages
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let mut wrong = Vec::new();
    for package in &packages {
        match table.get(package.name.as_str()) {
            Some(row) => wrong.extend(breaches(package, row, &ours)),
            None => wrong.push(format!("{} has no row in the table", package.name)),
        }
    }
    wrong.extend(
        table
            .keys()
            .filter(|name| !ours.contains(*name))
            .map(|name| format!("{name}: no such crate")),
    );
    assert_none(&wrong);
}

#[test]
fn a_breach_of_the_table_is_found() {
    let packages = packages();
    let daemon = packages
        .iter()
        .find(|package| *package.name == "kedge-daemon")
        .expect("is there");
    let ours = packages
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let nothing_allowed = Row {
        kind: "pure".to_owned(),
        allowed: BTreeSet::new(),
    };
    let wrong = breaches(daemon, &nothing_allowed, &ours);
    assert!(
        wrong.iter().any(|line| line.contains("kedge-link")),
        "{wrong:?}"
    );
    assert!(wrong.iter().any(|line| line.contains("tokio")), "{wrong:?}");
}

fn breaches(package: &Package, row: &Row, ours: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for dependency in &package.dependencies {
        if dependency.kind == DependencyKind::Development {
            continue;
        }
        let name = &dependency.name;
        if ours.contains(name) && !row.allowed.contains(name) {
            wrong.push(format!("{} may not depend on {name}", package.name));
        }
        if row.kind == "pure" && NOT_PURE.contains(&name.as_str()) {
            wrong.push(format!("{} is pure and may not use {name}", package.name));
        }
    }
    wrong
}

fn packages() -> Vec<Package> {
    let apart = APART
        .iter()
        .filter(|manifest| root().join(manifest).exists())
        .copied();
    std::iter::once("Cargo.toml")
        .chain(apart)
        .flat_map(|manifest| packages_of(&root().join(manifest)).expect("a manifest"))
        .collect()
}

fn table(architecture: &str) -> BTreeMap<String, Row> {
    let (_, section) = architecture
        .split_once("\n## Layers\n")
        .expect("a section \"Layers\"");
    let section = section.split("\n## ").next().unwrap_or_default();
    section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(row)
        .collect()
}

fn row(line: &str) -> (String, Row) {
    let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, kind, allowed] = cells[..] else {
        panic!("a row has crate, kind and dependencies: {line}");
    };
    let names = allowed
        .split(',')
        .map(plain)
        .filter(|name| !name.is_empty());
    (
        plain(name),
        Row {
            kind: kind.to_owned(),
            allowed: names.collect(),
        },
    )
}

/// A name without its backticks; the dash that stands for "nothing" becomes nothing.
fn plain(cell: &str) -> String {
    cell.trim().trim_matches(['`', '-', '–']).to_owned()
}
