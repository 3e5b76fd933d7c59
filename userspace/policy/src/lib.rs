//! Who may talk to whom, and how strictly a workload is held to kedge.
//!
//! ```text
//!   policies/*.toml ── Policy::parse ──> Policy ── decide ──> Decision     per connection, no allocation
//!                                          ├────── explain ─> Explanation  the same verdict, with reasons
//!                                          └─ compile(directory, node) ──> Verdicts  what BPF is told
//! ```
//!
//! Default deny: what no `[[allow]]` names is refused. A `[[deny]]` always wins. Every verdict is a
//! pure function of the documents, so a policy's [`PolicyVersion`] is the hash of their content.
//! docs/policy.md describes the documents.

#![forbid(unsafe_code)]

mod compile;
mod error;
mod explain;
mod folder;
mod index;
pub mod limits;
mod pattern;
mod policy;
mod raw;
mod rule;

pub use compile::{LocalWorkload, Verdict, VerdictEntry, Verdicts, compile};
pub use error::{PolicyError, Problem};
pub use explain::{Explanation, NearMiss, RuleReference};
pub use folder::load;
pub use pattern::IdPattern;
pub use policy::{Decision, Document, Policy, PolicyVersion, Request};
pub use rule::{Effect, ModeScope, Ports, Rule, RuleId};
