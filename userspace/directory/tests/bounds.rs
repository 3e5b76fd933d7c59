//! Goal: a directory past any of its bounds is refused, with the bound.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use kedge_directory::Directory;

/// `count` entries, each as `entry` writes its number.
fn list(count: usize, entry: impl Fn(usize) -> String) -> String {
    let entries: Vec<_> = (0..count).map(entry).collect();
    format!("[{}]", entries.join(",\n"))
}

fn refused(text: &str) -> String {
    let mut text = text.to_owned();
    text.insert_str(0, "version = 1\n");
    Directory::parse(&text).unwrap_err().to_string()
}

#[test]
fn a_directory_past_a_bound_is_refused_with_the_bound() {
    let prefix = |n: usize| format!("\"fd00:{n:x}::/32\"");
    let address = |n: usize| format!("\"10.0.{}.{}\"", n / 256, n % 256);
    let node = |n: usize| format!("{{ name = \"n{n}\", addresses = [\"fd00::{n:x}\"] }}");
    let one = "node = [{ name = \"n\", addresses = [\"10.1.0.1\"] }]\n";
    let endpoint = |n: usize| format!("{{ uid = \"u{n}\", port = 1 }}");
    let cases = [
        (format!("managed = {}", list(1_025, prefix)), "1024 "),
        (format!("node = {}", list(10_001, node)), "10000 nodes"),
        (
            format!(
                "node = [{{ name = \"n\", addresses = {} }}]",
                list(17, address)
            ),
            "16 addresses",
        ),
        (
            format!(
                "{one}service = [{{ name = \"s\", addresses = [\"10.9.0.1\"], port = 1, endpoints = {} }}]",
                list(10_001, endpoint)
            ),
            "10000 endpoints",
        ),
    ];
    for (text, bound) in cases {
        let told = refused(&text);
        assert!(told.contains(&format!("more than {bound}")), "{told}");
    }
}

#[test]
fn a_file_past_its_bound_is_refused_before_it_is_parsed() {
    let comment = "#".repeat((64 << 20) + 1);
    let told = Directory::parse(&comment).unwrap_err().to_string();
    assert!(told.contains("larger than 67108864 bytes"), "{told}");
}
