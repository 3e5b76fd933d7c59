//! Goal: the index that `decide` uses finds exactly the rules that match when each is looked at
//! by itself, for random rules and requests over a few names (so that many of them meet).

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use kedge_model::SpiffeId;
use kedge_policy::{Document, Effect, Policy, Request, Rule};
use proptest::prelude::*;
use std::fmt::Write;

const IDS: [&str; 6] = ["td/a", "td/a/b", "td/a/b/c", "td/b", "td/ab", "other/a/b"];
const PATTERNS: [&str; 9] = [
    "td/*",
    "td/a/*",
    "td/a/b/*",
    "td/a",
    "td/a/b",
    "td/b",
    "td/ab",
    "other/*",
    "other/a/b",
];
const PORTS: [&str; 4] = ["", "ports = [1]", "ports = [\"1-2\", 9]", "ports = [2]"];

fn rules() -> impl Strategy<Value = String> {
    let (effects, patterns) = (["allow", "deny"], PATTERNS);
    let rule = (
        0..2usize,
        0..patterns.len(),
        0..patterns.len(),
        0..PORTS.len(),
    );
    proptest::collection::vec(rule, 0..12).prop_map(move |rules| {
        rules.into_iter().fold(String::new(), |mut text, (effect, source, destination, ports)| {
            let (source, destination) = (patterns[source], patterns[destination]);
            let _ = writeln!(
                text,
                "[[{}]]\nsource = 'spiffe://{source}'\ndestination = 'spiffe://{destination}'\n{}",
                effects[effect], PORTS[ports]
            );
            text
        })
    })
}

fn matches(rule: &Rule, request: &Request<'_>) -> bool {
    rule.source.matches(request.source)
        && rule.destination.matches(request.destination)
        && rule.ports.contains(request.port)
}

proptest! {
    #[test]
    fn decide_finds_what_looking_at_every_rule_finds(
        text in rules(), source in 0..IDS.len(), destination in 0..IDS.len(), port in 1..4u16,
    ) {
        let policy = Policy::parse(vec![Document { name: "x.toml".to_owned(), text }]).unwrap();
        let id = |at: usize| SpiffeId::parse(&format!("spiffe://{}", IDS[at])).unwrap();
        let (source, destination) = (&id(source), &id(destination));
        let request = Request { source, destination, port };
        let first = |effect| {
            policy.rules().iter().find(|rule| rule.effect == effect && matches(rule, &request))
        };
        let expected = first(Effect::Deny).or(first(Effect::Allow));
        let decision = policy.decide(&request);
        prop_assert_eq!(decision.rule.map(|id| policy.rule(id)), expected);
        prop_assert_eq!(decision.allow, expected.is_some_and(|rule| rule.effect == Effect::Allow));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[\\[\\]a-z_= '\"0-9\\-/*:\n]{0,200}") {
        let _ = Policy::parse(vec![Document { name: "x.toml".to_owned(), text }]);
    }
}
