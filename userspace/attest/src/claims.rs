//! What a quote's leaf states: for what purpose, for whom, about which node, in answer to which nonce.

use crate::digest::Sha256;
use crate::error::{ChallengeError, Malformed};
use crate::limits::{CALLER_BYTES_MAX, NONCE_BYTES_MAX, NONCE_BYTES_MIN};
use rustls::ConnectionCommon;
use std::fmt;

/// What Evidence is for. Evidence for one purpose is none for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// One link, named by its exporter: only the link's own code asks for it.
    Link = 1,
    /// Somebody on the node who asked over the socket.
    Local = 2,
    /// The CA, before it certifies an AK.
    Enrolment = 3,
    /// A Verifier, for a Result.
    Appraisal = 4,
}

impl Purpose {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        let all = [Self::Link, Self::Local, Self::Enrolment, Self::Appraisal];
        all.into_iter().find(|purpose| *purpose as u8 == code)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Local => "local",
            Self::Enrolment => "enrolment",
            Self::Appraisal => "appraisal",
        })
    }
}

/// Who asks: a pod, a process, a node. The broker names it, never the caller itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caller(String);

impl Caller {
    /// # Errors
    /// When it is empty or longer than [`CALLER_BYTES_MAX`].
    pub fn new(name: impl Into<String>) -> Result<Self, ChallengeError> {
        let name = name.into();
        match (1..=CALLER_BYTES_MAX).contains(&name.len()) {
            true => Ok(Self(name)),
            false => Err(ChallengeError::Caller(name.len())),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a Verifier chose, so that Evidence is not older than its question: 16 to 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(Vec<u8>);

impl Nonce {
    /// # Errors
    /// When there are fewer than [`NONCE_BYTES_MIN`] or more than [`NONCE_BYTES_MAX`] bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, ChallengeError> {
        let bytes = bytes.into();
        match (NONCE_BYTES_MIN..=NONCE_BYTES_MAX).contains(&bytes.len()) {
            true => Ok(Self(bytes)),
            false => Err(ChallengeError::Nonce(bytes.len())),
        }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// SHA-256 of the SubjectPublicKeyInfo (DER) of a node's SVID.
pub type NodeKey = Sha256;

/// 32 bytes that only the two ends of one TLS connection have (RFC 8446, 7.5). Made from a connection
/// and from nothing else, so what came over a socket can never be one.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkExporter([u8; 32]);

impl LinkExporter {
    pub const LABEL: &'static [u8] = b"EXPORTER-kedge attestation v1";

    /// # Errors
    /// When the handshake is not complete.
    pub fn of<Data>(connection: &ConnectionCommon<Data>) -> Result<Self, ChallengeError> {
        connection
            .export_keying_material([0; 32], Self::LABEL, None)
            .map(Self)
            .map_err(ChallengeError::Exporter)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The parts of a leaf. As they come from a peer they are what it *claims*; a broker takes a
/// [`Challenge`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub purpose: Purpose,
    pub caller: Caller,
    pub node_key: NodeKey,
    /// Of the link, for [`Purpose::Link`] and no other.
    pub exporter: Option<[u8; 32]>,
    pub nonce: Nonce,
}

impl Claims {
    const LABEL: &'static [u8] = b"kedge-attest-v1";

    /// SHA-256(0x00 ‖ "kedge-attest-v1" ‖ purpose ‖ caller ‖ node key ‖ exporter ‖ nonce). Purpose is
    /// one byte; each of the others has its length before it, in two bytes.
    #[must_use]
    pub fn leaf(&self) -> Sha256 {
        let mut bytes = vec![0];
        bytes.extend_from_slice(Self::LABEL);
        bytes.push(self.purpose as u8);
        let exporter = self.exporter.as_ref().map_or(&[][..], |bytes| &bytes[..]);
        for part in [
            self.caller.as_str().as_bytes(),
            &self.node_key.0,
            exporter,
            self.nonce.as_bytes(),
        ] {
            crate::reader::put_sized(&mut bytes, part);
        }
        Sha256::of(&[&bytes])
    }

    /// Only links have an exporter, and every link has one.
    pub(crate) fn check_form(&self) -> Result<(), Malformed> {
        match (self.purpose == Purpose::Link) == self.exporter.is_some() {
            true => Ok(()),
            false => Err(Malformed("claims: exporter and purpose do not go together")),
        }
    }
}

/// What a quote signs: SHA-256("kedge-quote-v1" ‖ tree size in eight bytes ‖ root).
#[must_use]
pub fn qualifying_data(size: u64, root: Sha256) -> Sha256 {
    Sha256::of(&[b"kedge-quote-v1", &size.to_be_bytes(), &root.0])
}

/// What a broker is asked. Which purpose it has follows from how it was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    purpose: Purpose,
    caller: Caller,
    exporter: Option<LinkExporter>,
    nonce: Nonce,
}

impl Challenge {
    /// A caller on the node, who gave nothing but a nonce.
    #[must_use]
    pub fn local(caller: Caller, nonce: Nonce) -> Self {
        Self::without_link(Purpose::Local, caller, nonce)
    }

    /// The peer of the link that `exporter` was made from.
    #[must_use]
    pub fn link(caller: Caller, exporter: LinkExporter, nonce: Nonce) -> Self {
        Self {
            exporter: Some(exporter),
            ..Self::without_link(Purpose::Link, caller, nonce)
        }
    }

    /// The CA that is to certify the AK.
    #[must_use]
    pub fn enrolment(caller: Caller, nonce: Nonce) -> Self {
        Self::without_link(Purpose::Enrolment, caller, nonce)
    }

    /// The Verifier that is to issue a Result.
    #[must_use]
    pub fn appraisal(caller: Caller, nonce: Nonce) -> Self {
        Self::without_link(Purpose::Appraisal, caller, nonce)
    }

    fn without_link(purpose: Purpose, caller: Caller, nonce: Nonce) -> Self {
        Self {
            purpose,
            caller,
            exporter: None,
            nonce,
        }
    }

    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// What is stated about the node with this key.
    #[must_use]
    pub fn claims(self, node_key: NodeKey) -> Claims {
        Claims {
            purpose: self.purpose,
            caller: self.caller,
            node_key,
            exporter: self.exporter.map(|exporter| exporter.0),
            nonce: self.nonce,
        }
    }
}

#[cfg(any(test, feature = "testing"))]
impl LinkExporter {
    /// One that is of no connection, for tests of what uses one.
    #[must_use]
    pub fn for_tests(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn claims(caller: &str, nonce: &[u8]) -> Claims {
        let caller = Caller::new(caller).expect("short");
        let nonce = Nonce::new(nonce).expect("within bounds");
        Challenge::local(caller, nonce).claims(Sha256([1; 32]))
    }

    #[test]
    fn a_byte_that_moves_from_one_part_to_the_next_makes_another_leaf() {
        let (a, b) = (claims("ab", &[b'c'; 16]), claims("a", &[b'c'; 17]));
        assert_ne!(a.leaf(), b.leaf());
        let mut linked = claims("a", &[7; 16]);
        let unlinked = linked.leaf();
        linked.exporter = Some([7; 32]);
        assert_ne!(linked.leaf(), unlinked);
        let longer = claims("a", &[7; 48]);
        assert_ne!(linked.leaf(), longer.leaf());
    }

    #[test]
    fn each_part_changes_the_leaf() {
        let one = claims("a", &[1; 16]);
        let purposes = [Purpose::Link, Purpose::Enrolment, Purpose::Appraisal];
        let mut all: Vec<_> = purposes
            .map(|purpose| Claims {
                purpose,
                ..one.clone()
            })
            .into();
        all.push(claims("b", &[1; 16]));
        all.push(claims("a", &[2; 16]));
        all.push(Claims {
            node_key: Sha256([2; 32]),
            ..one.clone()
        });
        all.push(Claims {
            exporter: Some([3; 32]),
            ..one.clone()
        });
        all.push(one);
        let leaves: HashSet<_> = all.iter().map(Claims::leaf).collect();
        assert_eq!(leaves.len(), all.len());
    }

    #[test]
    fn a_nonce_or_caller_out_of_bounds_is_refused_with_its_length() {
        assert!(matches!(
            Nonce::new([0; 15]),
            Err(ChallengeError::Nonce(15))
        ));
        assert!(matches!(
            Nonce::new([0; 65]),
            Err(ChallengeError::Nonce(65))
        ));
        assert!(matches!(Caller::new(""), Err(ChallengeError::Caller(0))));
        assert!(Caller::new("x".repeat(CALLER_BYTES_MAX)).is_ok());
        assert!(Caller::new("x".repeat(CALLER_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn only_a_challenge_made_from_a_link_has_the_purpose_link() {
        let caller = || Caller::new("a").expect("short");
        let nonce = || Nonce::new([1; 16]).expect("within bounds");
        let exporter = LinkExporter::for_tests([9; 32]);
        let link = Challenge::link(caller(), exporter, nonce()).claims(Sha256([1; 32]));
        assert_eq!(
            (link.purpose, link.exporter),
            (Purpose::Link, Some([9; 32]))
        );
        for other in [
            Challenge::local(caller(), nonce()),
            Challenge::enrolment(caller(), nonce()),
            Challenge::appraisal(caller(), nonce()),
        ] {
            let claims = other.claims(Sha256([1; 32]));
            assert_ne!(claims.purpose, Purpose::Link);
            assert_eq!(claims.exporter, None);
        }
    }
}
