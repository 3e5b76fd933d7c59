//! A document's form, before its content is checked. docs/policy.md describes it.

use ipnet::IpNet;
use kedge_model::{Mode, RecordsMode};
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDocument {
    pub default_mode: Option<Spanned<Mode>>,
    #[serde(default, rename = "mode")]
    pub modes: Vec<Spanned<RawMode>>,
    #[serde(default)]
    pub records: Vec<Spanned<RawRecords>>,
    #[serde(default, rename = "allow")]
    pub allows: Vec<Spanned<RawRule>>,
    #[serde(default, rename = "deny")]
    pub denies: Vec<Spanned<RawRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMode {
    pub workload: Option<String>,
    pub prefix: Option<IpNet>,
    pub mode: Mode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRecords {
    pub workload: String,
    pub mode: RecordsMode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRule {
    pub source: String,
    pub destination: String,
    pub ports: Option<Vec<RawPort>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a port, or a range such as \"8000-8099\"")]
pub(crate) enum RawPort {
    Number(u16),
    Range(String),
}

impl RawPort {
    pub fn text(&self) -> String {
        match self {
            Self::Number(port) => port.to_string(),
            Self::Range(text) => text.clone(),
        }
    }
}

/// Where a text's lines end: a document has a rule every few lines, and each is asked for.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line, from 1, in which byte `offset` stands.
    pub fn at(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|end| *end < offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_its_newline() {
        let lines = Lines::of("a\n\nbc\n");
        let found: Vec<_> = (0..=6).map(|at| lines.at(at)).collect();
        assert_eq!(found, [1, 1, 2, 3, 3, 3, 4]);
        assert_eq!(Lines::of("").at(0), 1);
    }
}
