//! Documents and comments say what is there: every invariant names its test, every folder its
//! purpose, and nothing names somebody's machine or puts work off.

use crate::{assert_none, files, read};
use std::collections::BTreeSet;

/// Folders whose parts are listed one by one.
const SHOWN_INSIDE: [&str; 2] = ["ebpf", "userspace"];

#[test]
fn every_invariant_names_a_test_that_exists() {
    let tests = test_names();
    let architecture = read("ARCHITECTURE.md");
    let invariants = numbered_items(&architecture, "Invariants");
    assert!(
        !invariants.is_empty(),
        "ARCHITECTURE.md has numbered items under \"Invariants\""
    );
    let mut wrong = Vec::new();
    for invariant in invariants {
        let named = named_tests(&invariant);
        let start: String = invariant.chars().take(60).collect();
        if named.is_empty() && !invariant.contains("*pending issue ") {
            wrong.push(format!(
                "\"{start}…\" has neither \"Test: `name`\" nor *pending issue X*"
            ));
        }
        let missing = named.iter().filter(|name| !tests.contains(*name));
        wrong.extend(missing.map(|name| format!("\"{start}…\" names {name}, which is no test")));
    }
    assert_none(&wrong);
}

/// What the first column of docs/compatibility.md must not forget.
const COMPATIBILITY: [&str; 14] = [
    "Fast Open",
    "MPTCP",
    "MSG_OOB",
    "SO_LINGER",
    "TCP_INFO",
    "SO_BINDTODEVICE",
    "IP_TRANSPARENT",
    "Bound source address",
    "getsockname",
    "/proc/net/tcp",
    "connect(AF_UNSPEC)",
    "A socket connected by another process",
    "UDP",
    "The daemon's own sockets",
];

#[test]
fn every_row_of_compatibility_names_its_test_and_every_test_has_its_row() {
    let document = read("docs/compatibility.md");
    let rows: Vec<_> = document.lines().filter_map(compatibility_row).collect();
    let tests = test_names();
    let mut wrong = Vec::new();
    for (what, named) in &rows {
        if named.is_empty() {
            wrong.push(format!("\"{what}\" names no test"));
        }
        let missing = named.iter().filter(|name| !tests.contains(*name));
        wrong.extend(missing.map(|name| format!("\"{what}\" names {name}, which is no test")));
    }
    let has_row = |topic: &&str| rows.iter().any(|(what, _)| what.contains(*topic));
    let forgotten = COMPATIBILITY.iter().filter(|topic| !has_row(topic));
    wrong.extend(forgotten.map(|topic| format!("no row is about {topic}")));
    let is_named = |test: &&String| rows.iter().any(|(_, named)| named.contains(*test));
    let compared = tests_below("xtask/tests/compatibility/");
    let unnamed = compared.iter().filter(|test| !is_named(test));
    wrong.extend(unnamed.map(|test| format!("no row names {test}")));
    assert_none(&wrong);
}

/// What a row is about, and the tests that it names.
fn compatibility_row(line: &str) -> Option<(String, Vec<String>)> {
    let cells: Vec<_> = line.trim().strip_prefix("| ")?.split(" | ").collect();
    let ([what, .., last], 5) = (&cells[..], cells.len()) else {
        return None;
    };
    let is_head = *what == "what" || what.starts_with("---");
    (!is_head).then(|| (what.to_string(), quoted(last)))
}

#[test]
fn every_folder_has_its_line_in_the_readme() {
    let readme = read("README.md");
    let wrong: Vec<_> = folders()
        .into_iter()
        .filter(|folder| !readme.lines().any(|line| tells_purpose(line, folder)))
        .map(|folder| format!("README.md says nothing about {folder}/"))
        .collect();
    assert_none(&wrong);
}

#[test]
fn nothing_names_a_machine_or_puts_work_off() {
    // Put together here, so that this file is not its own finding.
    let paths = [concat!("/ho", "me/"), concat!("/wo", "rk/")];
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
    ];
    let mut wrong = Vec::new();
    for path in files().iter().filter(|path| is_text(path)) {
        for (number, line) in read(path).lines().enumerate() {
            let found = paths.iter().chain(&words).find(|word| has_word(line, word));
            wrong.extend(found.map(|word| format!("{path}:{}: {word}", number + 1)));
        }
    }
    assert_none(&wrong);
}

fn is_text(path: &str) -> bool {
    [".rs", ".md", ".toml", ".yaml", ".yml", ".sh"]
        .iter()
        .any(|end| path.ends_with(end))
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !joins(before) && (word.starts_with('/') || !joins(after))
    })
}

fn folders() -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for path in files() {
        let parts: Vec<_> = path.split('/').collect();
        let depth = if SHOWN_INSIDE.contains(&parts[0]) {
            2
        } else {
            1
        };
        if parts.len() > depth && !parts[0].starts_with('.') {
            folders.insert(parts[..depth].join("/"));
        }
    }
    folders
}

/// A line with the folder's name, or its last part, and something after it.
fn tells_purpose(line: &str, folder: &str) -> bool {
    let last = folder.rsplit('/').next().unwrap_or(folder);
    [folder, last].iter().any(|name| {
        let named = format!("{name}/");
        line.split_once(&named).is_some_and(|(before, after)| {
            let begins = before.chars().all(|c| !c.is_alphanumeric() && c != '/');
            begins && after.split_whitespace().count() >= 2
        })
    })
}

fn numbered_items(document: &str, heading: &str) -> Vec<String> {
    let section = document
        .split_once(&format!("\n## {heading}\n"))
        .map_or("", |(_, rest)| rest);
    let mut items: Vec<String> = Vec::new();
    for line in section.lines().take_while(|line| !line.starts_with("## ")) {
        let begins = line
            .split_once(". ")
            .is_some_and(|(n, _)| n.parse::<u32>().is_ok());
        match items.last_mut() {
            _ if begins => items.push(line.to_owned()),
            Some(item) => {
                item.push(' ');
                item.push_str(line.trim());
            }
            None => {}
        }
    }
    items
}

/// The names in backticks after "Test:" or "Tests:", without their paths.
fn named_tests(item: &str) -> Vec<String> {
    let after = item
        .split_once("Test:")
        .or_else(|| item.split_once("Tests:"));
    let Some((_, after)) = after else {
        return Vec::new();
    };
    quoted(after)
}

/// What stands in backticks, without its path.
fn quoted(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .map(|name| name.rsplit("::").next().unwrap_or(name).to_owned())
        .collect()
}

/// Every function in the repository that a test harness runs.
fn test_names() -> BTreeSet<String> {
    tests_below("")
}

fn tests_below(folder: &str) -> BTreeSet<String> {
    let is_code = |path: &&String| path.starts_with(folder) && path.ends_with(".rs");
    let mut names = BTreeSet::new();
    for path in files().iter().filter(is_code) {
        let mut is_test = false;
        for line in read(path).lines().map(str::trim) {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
            let name = line.trim_start_matches("async ").strip_prefix("fn ");
            if let Some(name) = name.filter(|_| is_test) {
                names.insert(name.split('(').next().unwrap_or_default().to_owned());
                is_test = false;
            }
        }
    }
    names
}

#[test]
fn the_documents_are_read_as_meant() {
    let document = "x\n## Invariants\n\n1. One. Test: `a::b`.\n2. Two\n   more. *pending issue B*\n\n## Next\n3. no\n";
    let items = numbered_items(document, "Invariants");
    assert_eq!(items.len(), 2);
    assert_eq!(named_tests(&items[0]), ["b"]);
    assert!(items[1].contains("*pending issue "));
    let row = compatibility_row("| `X` | yes | no | nothing | `a::b`, `c` |");
    assert_eq!(
        row,
        Some(("`X`".to_owned(), vec!["b".to_owned(), "c".to_owned()]))
    );
    assert_eq!(compatibility_row("| --- | --- | --- | --- | --- |"), None);
    assert!(tells_purpose("  link/     one handshake", "userspace/link"));
    assert!(tells_purpose("| `bench/` | the load generator |", "bench"));
    assert!(!tells_purpose("see userspace/link/src for it", "link"));
}
