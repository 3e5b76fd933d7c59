//! Goal: a folder of policies past its bounds is refused, with the bound.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use kedge_directory::Directory;
use kedge_model::{NodeName, SpiffeId};
use kedge_policy::limits::{MODE_RULES_MAX, RECORDS_RULES_MAX, RULES_MAX};
use kedge_policy::{Document, Policy, PolicyError, Request, compile, load};
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

/// Rules as somebody writes them who makes one for each pair, in documents of 10,000.
fn documents(rules: usize) -> Vec<Document> {
    let rule = |number: usize| {
        let effect = if number.is_multiple_of(10) {
            "deny"
        } else {
            "allow"
        };
        format!(
            "[[{effect}]]\nsource = \"spiffe://td/c{}\"\ndestination = \"spiffe://td/s{}\"\n",
            number % 100,
            number / 100
        )
    };
    let numbers: Vec<_> = (0..rules).collect();
    let documents = numbers.chunks(10_000).enumerate();
    let document = |(at, numbers): (usize, &[usize])| Document {
        name: format!("{at:02}.toml"),
        text: numbers.iter().map(|number| rule(*number)).collect(),
    };
    documents.map(document).collect()
}

fn allows(policy: &Policy, source: usize, destination: usize) -> bool {
    let id = |text: String| SpiffeId::parse(&text).unwrap();
    let request = Request {
        source: &id(format!("spiffe://td/c{source}")),
        destination: &id(format!("spiffe://td/s{destination}")),
        port: 80,
    };
    let decision = policy.decide(&request);
    assert_eq!(policy.explain(&request).allowed, decision.allow);
    decision.allow
}

fn refusal(documents: Vec<Document>) -> String {
    Policy::parse(documents).map(drop).unwrap_err().to_string()
}

#[test]
fn as_many_rules_as_the_bound_are_obeyed_and_one_more_is_refused_with_the_bound() {
    let policy = Policy::parse(documents(RULES_MAX)).unwrap();
    assert_eq!(policy.rules().len(), RULES_MAX);
    let last = policy.rules().iter().map(|rule| rule.line).max();
    assert_eq!(last, Some(3 * 10_000 - 2), "each names its line");
    assert!(allows(&policy, 1, 0));
    assert!(!allows(&policy, 10, 0), "denied");
    assert!(allows(&policy, 99, 999), "the last");
    assert!(!allows(&policy, 1, 1_000), "nobody's");
    let directory = Directory::parse("version = 1\nmanaged = [\"10.0.0.0/8\"]\n").unwrap();
    let verdicts = compile(&directory, &policy, &NodeName::parse("a").unwrap());
    assert_eq!(verdicts.policy_version, policy.version());

    let told = refusal(documents(RULES_MAX + 1));
    assert!(
        told.contains("more than 100000 [[allow]] and [[deny]] rules"),
        "{told}"
    );
}

#[test]
fn as_many_modes_as_the_bound_are_obeyed_and_one_more_is_refused_with_the_bound() {
    let modes = |count: usize| {
        let mode =
            |number| format!("[[mode]]\nworkload = \"spiffe://td/s{number}\"\nmode = \"off\"\n");
        let (name, text) = ("modes.toml".to_owned(), (0..count).map(mode).collect());
        Policy::parse(vec![Document { name, text }])
    };
    let policy = modes(MODE_RULES_MAX).unwrap();
    let mode = |id: String| policy.mode_of(&SpiffeId::parse(&id).unwrap(), &[]);
    assert_eq!(
        mode(format!("spiffe://td/s{}", MODE_RULES_MAX - 1)),
        kedge_model::Mode::Off
    );
    assert_eq!(
        mode(format!("spiffe://td/s{MODE_RULES_MAX}")),
        policy.default_mode()
    );

    let told = modes(MODE_RULES_MAX + 1).map(drop).unwrap_err();
    assert!(
        matches!(
            told,
            PolicyError::TooMany {
                limit: MODE_RULES_MAX,
                ..
            }
        ),
        "{told}"
    );
}

#[test]
fn as_many_records_as_the_bound_are_obeyed_and_one_more_is_refused_with_the_bound() {
    let records = |count: usize| {
        let rule = |number| {
            format!("[[records]]\nworkload = \"spiffe://td/s{number}\"\nmode = \"kernel\"\n")
        };
        let (name, text) = ("records.toml".to_owned(), (0..count).map(rule).collect());
        Policy::parse(vec![Document { name, text }])
    };
    let last = format!("spiffe://td/s{}", RECORDS_RULES_MAX - 1);
    let policy = records(RECORDS_RULES_MAX).unwrap();
    let asked = policy.records_of(&SpiffeId::parse(&last).unwrap());
    assert_eq!(asked, Some(kedge_model::RecordsMode::Kernel));

    let told = records(RECORDS_RULES_MAX + 1).map(drop).unwrap_err();
    assert_eq!(
        told.to_string(),
        "more than 1000 [[records]] rules in all policies together"
    );
}
