//! Goal: a folder of policies past its bounds is refused, with the bound.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use kedge_policy::load;
use std::fs;
use tempfile::TempDir;

#[test]
fn documents_past_their_bounds_are_refused_with_the_bound() {
    let folder = TempDir::new().unwrap();
    for number in 0..1_001 {
        fs::write(folder.path().join(format!("{number}.toml")), "").unwrap();
    }
    let told = load(folder.path()).map(drop).unwrap_err().to_string();
    assert!(told.contains("more than 1000 documents"), "{told}");

    let folder = TempDir::new().unwrap();
    let long = "#".repeat((1 << 20) + 1);
    fs::write(folder.path().join("long.toml"), long).unwrap();
    let told = load(folder.path()).map(drop).unwrap_err().to_string();
    assert!(told.contains("larger than 1048576 bytes"), "{told}");
}
