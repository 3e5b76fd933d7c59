//! A SPIFFE ID, or all below a path.

use crate::error::Problem;
use kedge_model::SpiffeId;
use std::fmt;

/// Exactly one identity, or with a trailing `/*` every identity with at least one more segment.
///
/// `spiffe://td/ns/default/*` matches `spiffe://td/ns/default/sa/web`, but neither
/// `spiffe://td/ns/default` nor `spiffe://td/ns/default2/sa/web`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdPattern {
    /// An identity, or a prefix of identities that ends with '/': the one is never the other.
    key: Box<str>,
}

impl IdPattern {
    /// # Errors
    /// When `text` is neither a SPIFFE ID nor one with `*` for its last segment.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let (key, probe) = match text.strip_suffix("/*") {
            Some(above) => (format!("{above}/"), format!("{above}/any")),
            None => (text.to_owned(), text.to_owned()),
        };
        SpiffeId::parse(&probe).map_err(|cause| Problem::Pattern {
            pattern: text.to_owned(),
            cause,
        })?;
        Ok(Self { key: key.into() })
    }

    #[must_use]
    pub fn matches(&self, id: &SpiffeId) -> bool {
        if self.is_exact() {
            *self.key == *id.as_str()
        } else {
            id.as_str().starts_with(&*self.key)
        }
    }

    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.key.ends_with('/')
    }

    /// More bytes name fewer identities; an exact pattern is the most specific of its length.
    pub(crate) fn specificity(&self) -> (bool, usize) {
        (self.is_exact(), self.key.len())
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.is_exact() { "" } else { "*" };
        write!(f, "{}{star}", self.key)
    }
}

/// The keys of all patterns that match `id`: itself, and each of its paths up to a '/'.
pub(crate) fn keys_matching(id: &SpiffeId) -> impl Iterator<Item = &str> {
    let text = id.as_str();
    let path_start = text.len() - id.path().len();
    let prefixes = text
        .match_indices('/')
        .map(|(at, _)| at)
        .filter(move |at| *at >= path_start);
    std::iter::once(text).chain(prefixes.map(|at| &text[..=at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).expect("literal")
    }

    #[test]
    fn a_star_matches_whole_segments_below_and_nothing_beside() {
        let pattern = IdPattern::parse("spiffe://td/ns/default/*").expect("literal");
        assert!(pattern.matches(&id("spiffe://td/ns/default/sa/web")));
        assert!(pattern.matches(&id("spiffe://td/ns/default/x")));
        for other in [
            "spiffe://td/ns/default",
            "spiffe://td/ns/default2/x",
            "spiffe://t/ns/default/x",
        ] {
            assert!(!pattern.matches(&id(other)), "{other}");
        }
    }

    #[test]
    fn a_star_elsewhere_is_refused() {
        for text in [
            "*",
            "spiffe://td/ns/*/sa/web",
            "spiffe://td/ns/de*",
            "spiffe://*/x",
            "/*",
        ] {
            assert!(IdPattern::parse(text).is_err(), "{text}");
        }
        assert!(IdPattern::parse("spiffe://td/*").is_ok());
    }

    #[test]
    fn the_keys_of_an_id_are_those_of_exactly_the_patterns_that_match_it() {
        let keys: Vec<_> = keys_matching(&id("spiffe://td/ns/a"))
            .map(str::to_owned)
            .collect();
        assert_eq!(
            keys,
            ["spiffe://td/ns/a", "spiffe://td/", "spiffe://td/ns/"]
        );
    }
}
