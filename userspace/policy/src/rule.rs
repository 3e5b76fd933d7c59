//! One rule of a policy, and where it was written.

use crate::error::Problem;
use crate::pattern::IdPattern;
use ipnet::IpNet;
use kedge_model::{Mode, RecordsMode, SpiffeId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Names a rule of one [`crate::Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub(crate) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    Allow,
    Deny,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// `[[allow]]` or `[[deny]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub effect: Effect,
    pub source: IdPattern,
    pub destination: IdPattern,
    pub ports: Ports,
    pub document: Arc<str>,
    /// From 1.
    pub line: usize,
}

/// The ports that a rule speaks of: all, or those of its ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Option<Box<[RangeInclusive<u16>]>>);

impl Ports {
    pub const ALL: Self = Self(None);

    /// # Errors
    /// When there is none, or one is neither a port nor a range of ports.
    pub fn parse(texts: &[String]) -> Result<Self, Problem> {
        if texts.is_empty() {
            return Err(Problem::NoPorts);
        }
        texts
            .iter()
            .map(|text| range(text))
            .collect::<Result<_, _>>()
            .map(|all| Self(Some(all)))
    }

    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .as_ref()
            .is_none_or(|ranges| ranges.iter().any(|range| range.contains(&port)))
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, Problem> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port != 0);
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(Problem::Ports(text.to_owned())),
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ranges) = &self.0 else {
            return f.write_str("all");
        };
        for (at, range) in ranges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", range.start())?;
            if range.end() != range.start() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

/// `[[mode]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModeRule {
    pub scope: ModeScope,
    pub mode: Mode,
}

/// Whose mode a `[[mode]]` sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeScope {
    Workload(IdPattern),
    Prefix(IpNet),
}

impl ModeRule {
    pub fn matches(&self, id: &SpiffeId, addresses: &[IpAddr]) -> bool {
        match &self.scope {
            ModeScope::Workload(pattern) => pattern.matches(id),
            ModeScope::Prefix(prefix) => addresses
                .iter()
                .any(|ip| prefix.contains(&ip.to_canonical())),
        }
    }

    /// The greatest one decides: an identity before a prefix, the narrower before the wider, and
    /// of two equals the stricter, so that the order of documents never matters.
    pub fn rank(&self) -> (bool, bool, usize, u8) {
        let (is_workload, is_exact, length) = match &self.scope {
            ModeScope::Workload(pattern) => {
                let (exact, length) = pattern.specificity();
                (true, exact, length)
            }
            ModeScope::Prefix(prefix) => (false, false, usize::from(share_of_family(prefix))),
        };
        (is_workload, is_exact, length, strictness(self.mode))
    }
}

/// `[[records]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordsRule {
    pub workload: IdPattern,
    pub mode: RecordsMode,
}

impl RecordsRule {
    /// As of a mode: the narrower before the wider, and of two equals what asks for less.
    pub fn rank(&self) -> (bool, usize, u8) {
        let (is_exact, length) = self.workload.specificity();
        let caution = match self.mode {
            RecordsMode::Kernel => 0,
            RecordsMode::Auto => 1,
            RecordsMode::Userspace => 2,
        };
        (is_exact, length, caution)
    }
}

/// Prefix length on the scale of IPv6, so that both families compare.
fn share_of_family(prefix: &IpNet) -> u8 {
    prefix.prefix_len() + (128 - prefix.max_prefix_len())
}

fn strictness(mode: Mode) -> u8 {
    match mode {
        Mode::Off => 0,
        Mode::Permissive => 1,
        Mode::Require => 2,
    }
}
