//! Rules found by destination: on the way of every connection, so one look-up per path segment
//! and no allocation.

use crate::pattern::keys_matching;
use crate::policy::Request;
use crate::rule::{Rule, RuleId};
use std::collections::HashMap;

#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    by_destination: HashMap<Box<str>, Vec<RuleId>>,
}

impl Index {
    pub fn insert(&mut self, id: RuleId, rule: &Rule) {
        self.by_destination
            .entry(rule.destination.key().into())
            .or_default()
            .push(id);
    }

    /// The first rule, in the order of the documents, that matches.
    pub fn first_match(&self, rules: &[Rule], request: &Request<'_>) -> Option<RuleId> {
        keys_matching(request.destination)
            .filter_map(|key| self.by_destination.get(key))
            .filter_map(|ids| {
                ids.iter()
                    .copied()
                    .find(|id| matches_rest(&rules[id.0 as usize], request))
            })
            .min()
    }
}

fn matches_rest(rule: &Rule, request: &Request<'_>) -> bool {
    rule.ports.contains(request.port) && rule.source.matches(request.source)
}
