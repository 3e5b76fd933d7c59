//! The documents of a policy as one value that decides.

use crate::error::{PolicyError, Problem};
use crate::index::Index;
use crate::limits::{MODE_RULES_MAX, RECORDS_RULES_MAX, RULES_MAX};
use crate::pattern::IdPattern;
use crate::raw::{Lines, RawDocument, RawMode, RawPort, RawRecords, RawRule};
use crate::rule::{Effect, ModeRule, ModeScope, Ports, RecordsRule, Rule, RuleId};
use aws_lc_rs::digest;
use kedge_model::{Mode, RecordsMode, SpiffeId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// One file of a policy folder.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its file name: errors and explanations name it.
    pub name: String,
    pub text: String,
}

/// The first 8 bytes of the SHA-256 of all documents; 16 hexadecimal digits in text. Two nodes with
/// the same version have the same documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PolicyVersion(pub u64);

/// What is asked on the way of every connection.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    pub source: &'r SpiffeId,
    pub destination: &'r SpiffeId,
    /// The port at which the destination workload listens.
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allow: bool,
    /// The rule that decided; none when no rule matched, which denies.
    pub rule: Option<RuleId>,
}

/// A set of documents, compiled.
#[derive(Clone, Debug)]
pub struct Policy {
    version: PolicyVersion,
    default_mode: Mode,
    modes: Vec<ModeRule>,
    records: Vec<RecordsRule>,
    rules: Vec<Rule>,
    allow: Index,
    deny: Index,
}

impl Policy {
    /// # Errors
    /// At the first document that cannot be obeyed; the error names it and the line.
    pub fn parse(mut documents: Vec<Document>) -> Result<Self, PolicyError> {
        documents.sort_by(|a, b| a.name.cmp(&b.name));
        let mut builder = Builder::default();
        for document in &documents {
            builder.read(document)?;
        }
        builder.finish(version_of(&documents))
    }

    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        self.version
    }

    /// Whether `request` is allowed: never when a deny matches, else when an allow does.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        if let Some(rule) = self.deny.first_match(&self.rules, request) {
            return Decision {
                allow: false,
                rule: Some(rule),
            };
        }
        let rule = self.allow.first_match(&self.rules, request);
        Decision {
            allow: rule.is_some(),
            rule,
        }
    }

    /// How strictly a workload is held to kedge: by the most specific `[[mode]]`, else by default.
    #[must_use]
    pub fn mode_of(&self, id: &SpiffeId, addresses: &[IpAddr]) -> Mode {
        let matching = self.modes.iter().filter(|rule| rule.matches(id, addresses));
        matching
            .max_by_key(|rule| rule.rank())
            .map_or(self.default_mode, |rule| rule.mode)
    }

    /// The mode of a workload that no `[[mode]]` names.
    #[must_use]
    pub fn default_mode(&self) -> Mode {
        self.default_mode
    }

    /// Who is to seal the records of a workload's flows on its own node, where that is said.
    #[must_use]
    pub fn records_of(&self, id: &SpiffeId) -> Option<RecordsMode> {
        let matching = self.records.iter().filter(|rule| rule.workload.matches(id));
        matching
            .max_by_key(|rule| rule.rank())
            .map(|rule| rule.mode)
    }

    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule of a [`Decision`] of this policy.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> &Rule {
        &self.rules[id.0 as usize]
    }
}

/// Collects what the documents say.
#[derive(Default)]
struct Builder {
    default_mode: Option<(Mode, String)>,
    modes: Vec<ModeRule>,
    records: Vec<RecordsRule>,
    rules: Vec<Rule>,
}

impl Builder {
    fn read(&mut self, document: &Document) -> Result<(), PolicyError> {
        let lines = Lines::of(&document.text);
        let raw: RawDocument = toml::from_str(&document.text).map_err(|cause| {
            let line = lines.at(cause.span().map_or(0, |span| span.start));
            PolicyError::Syntax {
                document: document.name.clone(),
                line,
                cause: Box::new(cause),
            }
        })?;
        let name: Arc<str> = document.name.as_str().into();
        let content = |at: usize| {
            let line = lines.at(at);
            let document = document.name.clone();
            move |problem| PolicyError::Content {
                document,
                line,
                problem,
            }
        };
        if let Some(mode) = raw.default_mode {
            let at = mode.span().start;
            self.say_default(mode.into_inner(), &document.name)
                .map_err(content(at))?;
        }
        for mode in raw.modes {
            let at = mode.span().start;
            self.modes
                .push(mode_rule(mode.into_inner()).map_err(content(at))?);
        }
        for records in raw.records {
            let at = records.span().start;
            self.records
                .push(records_rule(&records.into_inner()).map_err(content(at))?);
        }
        let denies = raw.denies.into_iter().map(|rule| (Effect::Deny, rule));
        let allows = raw.allows.into_iter().map(|rule| (Effect::Allow, rule));
        for (effect, raw) in denies.chain(allows) {
            let at = raw.span().start;
            let place = (name.clone(), lines.at(at));
            self.rules
                .push(rule(effect, &raw.into_inner(), place).map_err(content(at))?);
        }
        Ok(())
    }

    fn say_default(&mut self, mode: Mode, document: &str) -> Result<(), Problem> {
        if let Some((_, first)) = &self.default_mode {
            return Err(Problem::DefaultTwice(first.clone()));
        }
        self.default_mode = Some((mode, document.to_owned()));
        Ok(())
    }

    fn finish(self, version: PolicyVersion) -> Result<Policy, PolicyError> {
        for (what, count, limit) in [
            ("[[mode]] rules", self.modes.len(), MODE_RULES_MAX),
            ("[[records]] rules", self.records.len(), RECORDS_RULES_MAX),
            ("[[allow]] and [[deny]] rules", self.rules.len(), RULES_MAX),
        ] {
            if count > limit {
                return Err(PolicyError::TooMany { what, limit });
            }
        }
        let (mut allow, mut deny) = (Index::default(), Index::default());
        for (id, rule) in (0..).map(RuleId).zip(&self.rules) {
            match rule.effect {
                Effect::Allow => allow.insert(id, rule),
                Effect::Deny => deny.insert(id, rule),
            }
        }
        let default_mode = self.default_mode.map_or(Mode::default(), |(mode, _)| mode);
        Ok(Policy {
            version,
            default_mode,
            modes: self.modes,
            records: self.records,
            rules: self.rules,
            allow,
            deny,
        })
    }
}

fn mode_rule(raw: RawMode) -> Result<ModeRule, Problem> {
    let scope = match (raw.workload, raw.prefix) {
        (Some(workload), None) => ModeScope::Workload(IdPattern::parse(&workload)?),
        (None, Some(prefix)) => ModeScope::Prefix(prefix.trunc()),
        _ => return Err(Problem::ModeScope),
    };
    Ok(ModeRule {
        scope,
        mode: raw.mode,
    })
}

fn records_rule(raw: &RawRecords) -> Result<RecordsRule, Problem> {
    Ok(RecordsRule {
        workload: IdPattern::parse(&raw.workload)?,
        mode: raw.mode,
    })
}

fn rule(effect: Effect, raw: &RawRule, place: (Arc<str>, usize)) -> Result<Rule, Problem> {
    let ports = match &raw.ports {
        None => Ports::ALL,
        Some(ports) => Ports::parse(&ports.iter().map(RawPort::text).collect::<Vec<_>>())?,
    };
    let source = IdPattern::parse(&raw.source)?;
    let destination = IdPattern::parse(&raw.destination)?;
    let (document, line) = place;
    Ok(Rule {
        effect,
        source,
        destination,
        ports,
        document,
        line,
    })
}

/// Lengths before contents, so that text cannot move from one document to the next unseen.
fn version_of(documents: &[Document]) -> PolicyVersion {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in documents
        .iter()
        .flat_map(|document| [&document.name, &document.text])
    {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finish();
    let first = digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
    PolicyVersion(u64::from_be_bytes(*first))
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<PolicyVersion> for String {
    fn from(version: PolicyVersion) -> Self {
        version.to_string()
    }
}

impl TryFrom<String> for PolicyVersion {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&text, 16).map(Self)
    }
}
