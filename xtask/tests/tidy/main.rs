//! The habits of this repository, as tests: who may depend on whom, how long files and functions
//! are, and that the documents say what is there.

mod documents;
mod layers;
mod sizes;

use std::path::PathBuf;
use std::process::Command;

/// Every file that belongs to the repository, relative to its root.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let text = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    text.lines()
        .filter(|path| root().join(path).is_file())
        .map(str::to_owned)
        .collect()
}

fn root() -> PathBuf {
    xtask::artifacts::repository()
}

fn read(path: &str) -> String {
    let full = root().join(path);
    std::fs::read_to_string(&full).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Fails with all that is wrong at once.
fn assert_none(wrong: &[String]) {
    assert!(
        wrong.is_empty(),
        "{} to mend:\n  {}",
        wrong.len(),
        wrong.join("\n  ")
    );
}
