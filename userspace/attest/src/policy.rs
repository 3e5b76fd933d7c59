//! Which values PCRs may have: a document in TOML.
//!
//! ```toml
//! event_log = "required"     # or "optional", which is the default
//!
//! [pcrs]                     # every PCR that is named here must be quoted
//! 0 = ["<64 hexadecimal digits>"]
//! 7 = ["<today's>", "<after the update>"]
//! ```

use crate::digest::Sha256;
use crate::error::Rejection;
use crate::limits::{PCRS, POLICY_BYTES_MAX, VALUES_PER_PCR_MAX};
use crate::pcr::{PcrSelection, PcrValues};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Whether Evidence needs an event log. One that is there is replayed either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventLogPolicy {
    #[default]
    Optional,
    Required,
}

/// Allowed values by PCR. Only a document that names a PCR is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrPolicy {
    event_log: EventLogPolicy,
    allowed: BTreeMap<u8, BTreeSet<Sha256>>,
}

/// Why a document is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("attestation policy")]
    Toml(#[source] Box<toml::de::Error>),
    #[error("attestation policy of {0} bytes, more than {POLICY_BYTES_MAX}")]
    TooLarge(usize),
    #[error("attestation policy: {0:?} is no PCR; they are numbered 0 to 23")]
    Index(String),
    #[error("attestation policy, PCR {index}: {text:?} is not 64 hexadecimal digits (SHA-256)")]
    Value { index: u8, text: String },
    #[error(
        "attestation policy, PCR {0}: no value, or more than {VALUES_PER_PCR_MAX}; take the PCR out \
         if it may hold anything"
    )]
    Values(u8),
    #[error(
        "attestation policy: names no PCR, so it would allow everything; let `kedge attest learn` \
         propose one"
    )]
    Empty,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    event_log: EventLogPolicy,
    pcrs: BTreeMap<String, Vec<String>>,
}

impl PcrPolicy {
    /// # Errors
    /// When it is not of the form above, or names nothing.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLarge(text.len()));
        }
        let document: Document =
            toml::from_str(text).map_err(|error| PolicyError::Toml(Box::new(error)))?;
        let mut allowed = BTreeMap::new();
        for (key, values) in document.pcrs {
            let index = key.parse().ok().filter(|index: &u8| *index < PCRS);
            let index = index.ok_or(PolicyError::Index(key))?;
            allowed.insert(index, parse_values(index, values)?);
        }
        match allowed.is_empty() {
            true => Err(PolicyError::Empty),
            false => Ok(Self {
                event_log: document.event_log,
                allowed,
            }),
        }
    }

    /// A policy that allows exactly what was observed.
    ///
    /// # Errors
    /// When nothing was.
    pub fn learn<'a>(
        observed: impl IntoIterator<Item = &'a PcrValues>,
    ) -> Result<Self, PolicyError> {
        let mut allowed: BTreeMap<u8, BTreeSet<Sha256>> = BTreeMap::new();
        for (index, value) in observed.into_iter().flat_map(PcrValues::iter) {
            let values = allowed.entry(index).or_default();
            values.insert(value);
            if values.len() > VALUES_PER_PCR_MAX {
                return Err(PolicyError::Values(index));
            }
        }
        match allowed.is_empty() {
            true => Err(PolicyError::Empty),
            false => Ok(Self {
                event_log: EventLogPolicy::Optional,
                allowed,
            }),
        }
    }

    /// What must be quoted.
    #[must_use]
    pub fn selection(&self) -> PcrSelection {
        PcrSelection::of(&self.allowed.keys().copied().collect::<Vec<_>>())
    }

    #[must_use]
    pub fn event_log(&self) -> EventLogPolicy {
        self.event_log
    }

    /// # Errors
    /// The first PCR that was not quoted, or holds what is not allowed.
    pub fn check(&self, quoted: &PcrValues) -> Result<(), Rejection> {
        for (index, allowed) in &self.allowed {
            let index = *index;
            let found = quoted.value(index).ok_or(Rejection::PcrNotQuoted(index))?;
            if !allowed.contains(&found) {
                return Err(Rejection::Pcr { index, found });
            }
        }
        Ok(())
    }

    /// The document, in the one form that has a digest.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let event_log = match self.event_log {
            EventLogPolicy::Optional => "optional",
            EventLogPolicy::Required => "required",
        };
        let mut text = format!("event_log = \"{event_log}\"\n\n[pcrs]\n");
        for (index, values) in &self.allowed {
            let values: Vec<_> = values.iter().map(|value| format!("\"{value}\"")).collect();
            let _ = writeln!(text, "{index} = [{}]", values.join(", "));
        }
        text
    }

    /// SHA-256 of [`PcrPolicy::to_toml`]: the same for documents that mean the same.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        Sha256::of(&[self.to_toml().as_bytes()])
    }
}

fn parse_values(index: u8, values: Vec<String>) -> Result<BTreeSet<Sha256>, PolicyError> {
    if values.is_empty() || values.len() > VALUES_PER_PCR_MAX {
        return Err(PolicyError::Values(index));
    }
    let value = |text: String| Sha256::parse(&text).ok_or(PolicyError::Value { index, text });
    values.into_iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: u8) -> PcrValues {
        PcrValues::new([(0, Sha256([seed; 32])), (7, Sha256([9; 32]))])
    }

    #[test]
    fn a_learned_policy_allows_what_was_observed_and_nothing_else() {
        let learned = PcrPolicy::learn([&values(1), &values(2)]).expect("something observed");
        assert_eq!(learned.selection(), PcrSelection::of(&[0, 7]));
        assert_eq!(learned.check(&values(1)), Ok(()));
        assert_eq!(learned.check(&values(2)), Ok(()));
        let refused = learned.check(&values(3)).expect_err("not observed");
        let expected = Rejection::Pcr {
            index: 0,
            found: Sha256([3; 32]),
        };
        assert_eq!(refused, expected);
    }

    #[test]
    fn a_pcr_of_the_policy_that_was_not_quoted_is_refused_by_its_number() {
        let learned = PcrPolicy::learn([&values(1)]).expect("something observed");
        let fewer = PcrValues::new([(0, Sha256([1; 32]))]);
        assert_eq!(learned.check(&fewer), Err(Rejection::PcrNotQuoted(7)));
    }

    #[test]
    fn a_policy_comes_back_from_its_own_text_with_the_same_digest() {
        let learned = PcrPolicy::learn([&values(1), &values(2)]).expect("something observed");
        let again = PcrPolicy::parse(&learned.to_toml()).expect("written here");
        assert_eq!((again.digest(), &again), (learned.digest(), &learned));
        let upper = learned.to_toml().replace("optional", "required");
        let required = PcrPolicy::parse(&upper).expect("a policy");
        assert_ne!(required.digest(), learned.digest());
    }

    #[test]
    fn a_document_that_is_no_policy_says_where() {
        let digits = "0".repeat(64);
        for (text, part) in [
            ("[pcrs]\n".to_owned(), "names no PCR"),
            (format!("[pcrs]\n24 = [\"{digits}\"]"), "0 to 23"),
            (format!("[pcrs]\nx = [\"{digits}\"]"), "0 to 23"),
            ("[pcrs]\n7 = [\"12\"]".to_owned(), "PCR 7"),
            ("[pcrs]\n7 = []".to_owned(), "PCR 7"),
            ("a = 1\n[pcrs]".to_owned(), "attestation policy"),
            ("x".repeat(POLICY_BYTES_MAX + 1), "bytes"),
        ] {
            let refused = PcrPolicy::parse(&text).expect_err(part).to_string();
            assert!(refused.contains(part), "{refused}");
        }
        assert_eq!(PcrPolicy::learn([]), Err(PolicyError::Empty));
    }

    #[test]
    fn values_past_their_bound_are_refused() {
        let many: Vec<_> = (0..=VALUES_PER_PCR_MAX)
            .map(|n| PcrValues::new([(3, Sha256::of(&[&n.to_be_bytes()]))]))
            .collect();
        assert_eq!(PcrPolicy::learn(&many), Err(PolicyError::Values(3)));
        assert!(PcrPolicy::learn(&many[1..]).is_ok());
    }
}
