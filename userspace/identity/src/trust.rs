//! Whom a node believes: the anchors of its bundle, less what was revoked before its time.

use crate::error::{RevocationError, StoreError, SvidError};
use crate::files;
use crate::limits::{BUNDLE_ANCHORS_MAX, REVOCATIONS_MAX};
use crate::svid::certificates;
use aws_lc_rs::digest::{SHA256, digest};
use kedge_model::SpiffeId;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::collections::HashSet;
use std::fmt;
use std::path::Path;

/// What chains are verified against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Revocations,
}

impl Trust {
    /// Reads a bundle, and a revocation list where there is one.
    ///
    /// # Errors
    /// When a file cannot be read, or for the reasons of [`Trust::parse`]. A list that is named
    /// and missing is an error: nobody is believed again because a file got lost.
    pub fn load(bundle: &Path, revoked: Option<&Path>) -> Result<Self, StoreError> {
        let bundle = files::read(bundle)?;
        let revoked = revoked.map(files::read).transpose()?.unwrap_or_default();
        Self::parse(&bundle, &String::from_utf8_lossy(&revoked))
    }

    /// # Errors
    /// When the bundle is not PEM of at least one usable anchor, or a line of the list is none.
    pub fn parse(bundle: &[u8], revoked: &str) -> Result<Self, StoreError> {
        let anchor = |certificate: &CertificateDer<'_>| {
            webpki::anchor_from_trusted_cert(certificate)
                .map(|anchor| anchor.to_owned())
                .map_err(|error| SvidError::Chain(error).into())
        };
        let found = certificates(bundle, "bundle", BUNDLE_ANCHORS_MAX)?;
        let anchors: Result<_, StoreError> = found.iter().map(anchor).collect();
        Ok(Self {
            anchors: anchors?,
            revoked: Revocations::parse(revoked)?,
        })
    }

    /// SHA-256 of each anchor's SubjectPublicKeyInfo (DER): keys that issue identities, and must do
    /// nothing else.
    #[must_use]
    pub fn key_hashes(&self) -> Vec<[u8; 32]> {
        let of = |anchor: &TrustAnchor<'_>| key_hash(&sequence(&anchor.subject_public_key_info));
        self.anchors.iter().map(of).collect()
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    pub(crate) fn check_leaf(&self, leaf: &CertificateDer<'_>) -> Result<(), SvidError> {
        let fingerprint = Fingerprint::of(leaf);
        match self.revoked.leaves.contains(&fingerprint) {
            true => Err(SvidError::RevokedLeaf(fingerprint)),
            false => Ok(()),
        }
    }

    pub(crate) fn check_node(&self, id: &SpiffeId) -> Result<(), SvidError> {
        match self.revoked.nodes.contains(id) {
            true => Err(SvidError::RevokedNode(id.clone())),
            false => Ok(()),
        }
    }
}

/// SHA-256 of a SubjectPublicKeyInfo (DER).
pub(crate) fn key_hash(spki: &[u8]) -> [u8; 32] {
    let hash = digest(&SHA256, spki);
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// DER of a SEQUENCE with this content, which is all of it that an anchor keeps.
fn sequence(content: &[u8]) -> Vec<u8> {
    // No key is longer: the certificate that it is in is not.
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    let header = match length {
        0..0x80 => vec![0x30, low],
        0x80..0x100 => vec![0x30, 0x81, low],
        _ => vec![0x30, 0x82, high, low],
    };
    [&header, content].concat()
}

/// How many it believes, and how many it does not.
impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Revocations { leaves, nodes } = &self.revoked;
        let (anchors, leaves, nodes) = (self.anchors.len(), leaves.len(), nodes.len());
        write!(
            f,
            "anchors {anchors}, revoked certificates {leaves}, revoked nodes {nodes}"
        )
    }
}

/// What is revoked, one a line: a leaf by the SHA-256 of its DER form, or a node with all that it
/// will ever show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Revocations {
    leaves: HashSet<Fingerprint>,
    nodes: HashSet<SpiffeId>,
}

impl Revocations {
    fn parse(text: &str) -> Result<Self, RevocationError> {
        let mut revoked = Self::default();
        for (at, line) in text.lines().enumerate() {
            let entry = line.split('#').next().unwrap_or_default().trim();
            if at >= REVOCATIONS_MAX {
                return Err(RevocationError::TooMany(REVOCATIONS_MAX));
            }
            if entry.is_empty() {
                continue;
            }
            let line = at + 1;
            if let Some(leaf) = Fingerprint::parse(entry) {
                revoked.leaves.insert(leaf);
                continue;
            }
            match SpiffeId::parse(entry) {
                Ok(id) if id.node_name().is_some() => drop(revoked.nodes.insert(id)),
                Ok(id) => return Err(RevocationError::NotANode { line, id }),
                Err(_) => return Err(RevocationError::Line { line }),
            }
        }
        Ok(revoked)
    }
}

/// SHA-256 of a certificate's DER form, as `openssl x509 -fingerprint -sha256` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let hash = digest(&SHA256, certificate);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// 64 hexadecimal digits, with colons between the bytes or without.
    fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it_and_as_we_do() {
        let ours = Fingerprint::of(&CertificateDer::from(vec![1, 2, 3]));
        let text = ours.to_string();
        let pairs: Vec<_> = text
            .as_bytes()
            .chunks(2)
            .map(String::from_utf8_lossy)
            .collect();
        assert_eq!(Fingerprint::parse(&text), Some(ours));
        assert_eq!(
            Fingerprint::parse(&pairs.join(":").to_uppercase()),
            Some(ours)
        );
    }

    #[test]
    fn the_key_of_an_anchor_is_hashed_as_it_stands_in_its_certificate() {
        let key = rcgen::KeyPair::generate().expect("the library makes keys");
        let params = rcgen::CertificateParams::default();
        let certificate = params.self_signed(&key).expect("a certificate");
        let trust = Trust::parse(certificate.pem().as_bytes(), "").expect("an anchor");
        let parsed = crate::verify::parse(certificate.der()).expect("just made");
        assert_eq!(trust.key_hashes(), [key_hash(parsed.public_key().raw)]);
        for (length, header) in [
            (0x7f, vec![0x30, 0x7f]),
            (0x80, vec![0x30, 0x81, 0x80]),
            (0x1ff, vec![0x30, 0x82, 0x01, 0xff]),
        ] {
            assert_eq!(sequence(&vec![0; length])[..header.len()], header);
        }
    }

    #[test]
    fn a_line_that_revokes_nothing_is_an_error_and_never_skipped() {
        let revoked = Revocations::parse("# lost in March\n\nspiffe://td/kedge/node/a # stolen\n");
        assert_eq!(revoked.expect("two comments and a node").nodes.len(), 1);
        for (text, line) in [
            ("x", 1),
            ("# fine\n00:11", 2),
            ("+1".repeat(32).as_str(), 1),
        ] {
            let error = Revocations::parse(text).expect_err(text);
            assert!(
                error.to_string().contains(&format!("line {line}")),
                "{error}"
            );
        }
        let workload = Revocations::parse("spiffe://td/ns/x/sa/web").expect_err("no node");
        assert!(workload.to_string().contains("[[deny]]"), "{workload}");
    }
}
