//! Files and functions stay small. What is larger today is listed in xtask/tidy-ratchet.toml with
//! its length, and may only become shorter.

use crate::{assert_none, files, read};
use serde::Deserialize;
use std::collections::BTreeMap;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const RATCHET: &str = "xtask/tidy-ratchet.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratchet {
    files: BTreeMap<String, usize>,
    functions: BTreeMap<String, usize>,
}

#[test]
fn files_and_functions_stay_small() {
    let ratchet: Ratchet = toml::from_str(&read(RATCHET)).expect("the ratchet parses");
    let (mut long_files, mut long_functions) = (BTreeMap::new(), BTreeMap::new());
    for path in files().iter().filter(|path| path.ends_with(".rs")) {
        let text = read(path);
        note(
            &mut long_files,
            path.clone(),
            text.lines().count(),
            FILE_LINES_MAX,
        );
        for (name, lines) in functions(&text) {
            note(
                &mut long_functions,
                format!("{path}::{name}"),
                lines,
                FUNCTION_LINES_MAX,
            );
        }
    }
    let mut wrong = compare("file", &long_files, &ratchet.files, FILE_LINES_MAX);
    wrong.extend(compare(
        "function",
        &long_functions,
        &ratchet.functions,
        FUNCTION_LINES_MAX,
    ));
    assert_none(&wrong);
}

#[test]
fn the_ratchet_only_turns_one_way() {
    let of = |lines: usize| BTreeMap::from([("f".to_owned(), lines)]);
    let none = BTreeMap::new();
    assert!(compare("file", &of(80), &of(80), 70).is_empty());
    assert_eq!(compare("file", &of(81), &of(80), 70).len(), 1);
    assert_eq!(compare("file", &of(79), &of(80), 70).len(), 1);
    assert_eq!(compare("file", &of(80), &none, 70).len(), 1);
    assert_eq!(compare("file", &none, &of(80), 70).len(), 1);
}

#[test]
fn a_function_is_counted_from_its_name_to_its_brace() {
    let text = "impl X {\n    pub(crate) async fn a(\n        &self,\n    ) {\n        b();\n    }\n}\nfn c() {}\n";
    let counted: Vec<_> = functions(text);
    assert_eq!(counted, [("a".to_owned(), 5), ("c".to_owned(), 1)]);
}

fn note(long: &mut BTreeMap<String, usize>, name: String, lines: usize, limit: usize) {
    if lines > limit {
        long.insert(name, lines);
    }
}

fn compare(
    what: &str,
    found: &BTreeMap<String, usize>,
    listed: &BTreeMap<String, usize>,
    limit: usize,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, lines) in found {
        match listed.get(name) {
            None => wrong.push(format!(
                "{what} {name}: {lines} lines, more than {limit}: split it"
            )),
            Some(before) if lines > before => {
                wrong.push(format!("{what} {name}: {lines} lines, grown from {before}"));
            }
            Some(before) if lines < before => {
                wrong.push(format!(
                    "{what} {name}: {lines} lines now: say so in {RATCHET}"
                ));
            }
            Some(_) => {}
        }
    }
    let gone = listed.keys().filter(|name| !found.contains_key(*name));
    wrong.extend(gone.map(|name| format!("{what} {name}: short now: take it out of {RATCHET}")));
    wrong
}

/// Name and length of each function. rustfmt puts the closing brace under the `fn` line's start,
/// so indentation tells where it ends.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let is_end = |line: &&str| {
            line.strip_prefix(indent)
                .is_some_and(|rest| rest.starts_with('}'))
        };
        let length = if line.ends_with(['}', ';']) {
            1
        } else {
            lines[start + 1..]
                .iter()
                .position(is_end)
                .map_or(1, |after| after + 2)
        };
        found.push((name.to_owned(), length));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let keyword = words.by_ref().find(|word| !is_qualifier(word))?;
    let name = words.next().filter(|_| keyword == "fn")?;
    name.split(['(', '<']).next()
}

fn is_qualifier(word: &str) -> bool {
    matches!(word, "const" | "async" | "unsafe" | "extern" | "\"C\"") || word.starts_with("pub")
}
