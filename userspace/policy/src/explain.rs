//! The same verdict as `decide`, with its reasons: for `kedge policy explain` and for events.

use crate::policy::{Policy, PolicyVersion, Request};
use crate::rule::{Effect, Rule};
use kedge_model::SpiffeId;
use serde::{Deserialize, Serialize};

/// Why a connection is allowed or denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub allowed: bool,
    pub source: SpiffeId,
    pub destination: SpiffeId,
    pub port: u16,
    pub policy_version: PolicyVersion,
    /// The rule that decided; null when none matched, which denies.
    pub decided_by: Option<RuleReference>,
    /// Other rules that match, and do not change the verdict.
    pub also_matching: Vec<RuleReference>,
    /// When none matched: the allow that came closest.
    pub nearest: Option<NearMiss>,
}

/// A rule and where it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReference {
    pub effect: Effect,
    pub document: String,
    pub line: usize,
    pub source: String,
    pub destination: String,
    pub ports: String,
}

/// A rule that does not match, and in what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearMiss {
    pub rule: RuleReference,
    /// Of `source`, `destination`, `ports`: those that would have to be different.
    pub differs_in: Vec<String>,
}

impl Policy {
    /// The verdict of [`Policy::decide`] with the rules behind it.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        let decision = self.decide(request);
        let decider = decision.rule.map(|id| self.rule(id));
        let also = self
            .rules()
            .iter()
            .filter(|rule| misses(rule, request).is_empty());
        let also = also.filter(|rule| !decider.is_some_and(|decider| std::ptr::eq(decider, *rule)));
        Explanation {
            allowed: decision.allow,
            source: request.source.clone(),
            destination: request.destination.clone(),
            port: request.port,
            policy_version: self.version(),
            decided_by: decider.map(RuleReference::to),
            also_matching: also.map(RuleReference::to).collect(),
            nearest: if decider.is_none() {
                self.nearest(request)
            } else {
                None
            },
        }
    }

    /// The first allow with the fewest differences, unless everything is different.
    fn nearest(&self, request: &Request<'_>) -> Option<NearMiss> {
        let allows = self
            .rules()
            .iter()
            .filter(|rule| rule.effect == Effect::Allow);
        let missed = allows.map(|rule| (rule, misses(rule, request)));
        let (rule, misses) = missed.min_by_key(|(_, misses)| misses.len())?;
        let differs_in: Vec<_> = misses.into_iter().map(str::to_owned).collect();
        (differs_in.len() < 3).then(|| NearMiss {
            rule: RuleReference::to(rule),
            differs_in,
        })
    }
}

impl RuleReference {
    fn to(rule: &Rule) -> Self {
        Self {
            effect: rule.effect,
            document: rule.document.to_string(),
            line: rule.line,
            source: rule.source.to_string(),
            destination: rule.destination.to_string(),
            ports: rule.ports.to_string(),
        }
    }
}

fn misses(rule: &Rule, request: &Request<'_>) -> Vec<&'static str> {
    [
        ("source", rule.source.matches(request.source)),
        ("destination", rule.destination.matches(request.destination)),
        ("ports", rule.ports.contains(request.port)),
    ]
    .into_iter()
    .filter_map(|(part, matches)| (!matches).then_some(part))
    .collect()
}
