//! What `kedge feature probe` says of a kernel is what loading the programs shows.

mod common;

use common::chain;
use kedge_capture::probe_features;

/// On a kernel that loads the programs every feature is found; on one that does not, the probe
/// names what is missing.
#[test]
fn the_probe_misses_a_feature_exactly_where_the_programs_do_not_load() {
    let lab = lab_or_skip!();
    let missing: Vec<_> = probe_features()
        .into_iter()
        .filter(|feature| !feature.available)
        .map(|feature| format!("{}: {}", feature.name, feature.reason))
        .collect();
    println!("missing here: {missing:?}");
    match lab.try_load() {
        Ok(_) => assert!(missing.is_empty(), "found missing, but loaded: {missing:?}"),
        Err(error) => assert!(
            !missing.is_empty(),
            "nothing missing, but: {}",
            chain(&error)
        ),
    }
}
