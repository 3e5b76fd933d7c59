//! A document's form, before its content is checked. docs/policy.md describes it.

use ipnet::IpNet;
use kedge_model::Mode;
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDocument {
    pub default_mode: Option<Spanned<Mode>>,
    #[serde(default, rename = "mode")]
    pub modes: Vec<Spanned<RawMode>>,
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

/// The line, from 1, in which byte `offset` of `text` stands.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}
