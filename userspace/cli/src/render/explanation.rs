//! `kedge policy explain`.

use super::table::fields;
use kedge_api::{Explanation, RuleReference};

#[must_use]
pub fn explanation(answer: &Explanation) -> String {
    let verdict = if answer.allowed { "allowed" } else { "denied" };
    let mut rows = Vec::new();
    match &answer.decided_by {
        Some(decider) => {
            rows.push((verdict, place(decider)));
            rows.extend(terms(decider));
        }
        None => rows.push((verdict, "no rule matches".to_owned())),
    }
    if let Some(nearest) = &answer.nearest {
        let differs_in = nearest.differs_in.join(" and ");
        rows.push((
            "nearest",
            format!("{}, differs in {differs_in}", place(&nearest.rule)),
        ));
        rows.extend(terms(&nearest.rule));
    }
    rows.extend(
        answer
            .also_matching
            .iter()
            .map(|rule| ("also", place(rule))),
    );
    rows.push(("policy", format!("version {}", answer.policy_version)));
    fields(&rows)
}

fn place(rule: &RuleReference) -> String {
    format!("{} {} line {}", rule.effect, rule.document, rule.line)
}

fn terms(rule: &RuleReference) -> [(&'static str, String); 3] {
    [
        ("", format!("source       {}", rule.source)),
        ("", format!("destination  {}", rule.destination)),
        ("", format!("ports        {}", rule.ports)),
    ]
}
