//! SPIFFE identities (SPIFFE-ID specification, section 2), and the two kinds that kedge knows.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest SPIFFE ID in bytes (SPIFFE-ID specification, 2.3).
const ID_BYTES_MAX: usize = 2048;
/// Longest trust domain name in bytes (SPIFFE-ID specification, 2.3).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;
const SCHEME: &str = "spiffe://";
const NODE_PATH: &str = "/kedge/node/";

/// A well-formed SPIFFE ID with a path. [`SpiffeId::parse`] is the only way to get one.
///
/// Cheap to clone: flows, events and tables share one allocation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    text: Arc<str>,
    path_start: usize,
}

/// What an identity stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// `spiffe://<trust domain>/kedge/node/<name>`: a machine with a kedged.
    Node,
    /// Anything else: what runs in a pod or a cgroup.
    Workload,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    #[error("SPIFFE ID {0:?} does not start with spiffe://")]
    Scheme(String),
    #[error("SPIFFE ID is {0} bytes long, more than {ID_BYTES_MAX}")]
    TooLong(usize),
    #[error("trust domain {0:?} is not 1 to 255 characters of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain(String),
    #[error("SPIFFE ID {0:?} has no path, or a path with an empty, '.', '..' or odd segment")]
    Path(String),
    #[error("node name {0:?} is not one path segment of a SPIFFE ID")]
    NodeName(String),
}

impl SpiffeId {
    /// Parses `spiffe://<trust domain>/<path>`.
    ///
    /// # Errors
    /// Says which part is malformed. Nothing is normalised: an odd form is refused, not repaired.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > ID_BYTES_MAX {
            return Err(SpiffeIdError::TooLong(text.len()));
        }
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| SpiffeIdError::Scheme(text.to_owned()))?;
        let path_at = rest
            .find('/')
            .ok_or_else(|| SpiffeIdError::Path(text.to_owned()))?;
        let (domain, path) = rest.split_at(path_at);
        TrustDomain::parse(domain)?;
        if !path.split('/').skip(1).all(is_segment) {
            return Err(SpiffeIdError::Path(text.to_owned()));
        }
        Ok(Self {
            text: text.into(),
            path_start: SCHEME.len() + path_at,
        })
    }

    /// The identity of the node `name`.
    #[must_use]
    pub fn node(trust_domain: &TrustDomain, name: &NodeName) -> Self {
        Self::from_parts(trust_domain, &format!("{NODE_PATH}{name}"))
    }

    /// The identity of a workload by namespace and service account.
    ///
    /// # Errors
    /// When either is not a valid path segment.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeIdError> {
        Self::parse(&format!(
            "{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}"
        ))
    }

    fn from_parts(trust_domain: &TrustDomain, path: &str) -> Self {
        Self {
            text: format!("{SCHEME}{trust_domain}{path}").into(),
            path_start: SCHEME.len() + trust_domain.0.len(),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain(self.text[SCHEME.len()..self.path_start].into())
    }

    /// The path, with its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[self.path_start..]
    }

    #[must_use]
    pub fn kind(&self) -> IdKind {
        if self.path().starts_with("/kedge/") {
            IdKind::Node
        } else {
            IdKind::Workload
        }
    }

    /// The name in `/kedge/node/<name>`, for exactly that form.
    #[must_use]
    pub fn node_name(&self) -> Option<NodeName> {
        NodeName::parse(self.path().strip_prefix(NODE_PATH)?).ok()
    }
}

fn is_segment(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, SpiffeIdError> {
        Self::parse(&text)
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.as_str().to_owned()
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = SpiffeIdError;

            fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = SpiffeIdError;

            fn try_from(text: String) -> Result<Self, SpiffeIdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    };
}

name! {
    /// A trust domain name, such as `example.org`.
    TrustDomain
}
name! {
    /// A node's name: the last segment of its SPIFFE ID, and its key in the directory.
    NodeName
}

impl TrustDomain {
    /// # Errors
    /// When `text` is not a trust domain name.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        let valid = (1..=TRUST_DOMAIN_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_')
            });
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(SpiffeIdError::TrustDomain(text.to_owned()))
        }
    }
}

impl NodeName {
    /// # Errors
    /// When `text` is not one path segment.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if is_segment(text) && text.len() <= TRUST_DOMAIN_BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            Err(SpiffeIdError::NodeName(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_id_tells_its_parts() {
        let id = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/web").expect("literal");
        assert_eq!(id.trust_domain().as_str(), "lab.kedge");
        assert_eq!(id.path(), "/ns/default/sa/web");
        assert_eq!(id.kind(), IdKind::Workload);
        assert_eq!(id.node_name(), None);
    }

    #[test]
    fn a_node_id_is_one_only_in_its_exact_form() {
        let id = SpiffeId::parse("spiffe://td/kedge/node/a").expect("literal");
        assert_eq!(id.node_name(), Some(NodeName::parse("a").expect("literal")));
        let deeper = SpiffeId::parse("spiffe://td/kedge/node/a/b").expect("literal");
        assert_eq!((deeper.kind(), deeper.node_name()), (IdKind::Node, None));
    }

    #[test]
    fn odd_forms_are_refused() {
        for text in [
            "",
            "http://td/x",
            "spiffe://",
            "spiffe://td",
            "spiffe:///x",
            "spiffe://TD/x",
            "spiffe://td/",
            "spiffe://td//x",
            "spiffe://td/./x",
            "spiffe://td/../x",
            "spiffe://td/x/",
            "spiffe://td/x?y",
            "spiffe://td:80/x",
            "spiffe://user@td/x",
            "spiffe://td/%41",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text:?} was accepted");
        }
        assert!(SpiffeId::parse(&format!("spiffe://td/{}", "x".repeat(2048))).is_err());
    }

    proptest::proptest! {
        #[test]
        fn whatever_parses_prints_as_it_was(text in "spiffe://[a-z0-9.]{0,8}/[a-zA-Z0-9./_-]{0,24}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                proptest::prop_assert_eq!(id.as_str(), &text);
                let rebuilt = format!("spiffe://{}{}", id.trust_domain(), id.path());
                proptest::prop_assert_eq!(rebuilt, text);
            }
        }
    }
}
