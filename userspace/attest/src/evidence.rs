//! Evidence: what an Attester sends a Verifier. docs/attestation.md gives each field.
//!
//! On the wire it is CBOR (RFC 8949), since nearly all of it is bytes; a map with small numbers as
//! keys. There is exactly one encoding of a value: whatever else parses is refused, so nothing can
//! hide in unknown keys, repeated ones, longer lengths or behind the end.

use crate::ak::AkPublic;
use crate::claims::{Caller, Claims, Nonce, Purpose};
use crate::digest::Sha256;
use crate::error::{Malformed, Rejection};
use crate::limits::{
    CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX, EVENT_LOG_BYTES_MAX, EVIDENCE_BYTES_MAX,
    TPM_STRUCTURE_BYTES_MAX,
};
use crate::pcr::{PcrSelection, PcrValues};
use crate::tree::Inclusion;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// The version of the wire form that is written here.
pub const VERSION: u16 = 1;

/// One quote and all that is said about the node beside it: shared by every challenge that the
/// quote answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE over it.
    pub signature: Vec<u8>,
    pub pcrs: PcrValues,
    pub ak: AkPublic,
    /// The AK's certificate, then its intermediates; empty before enrolment.
    pub ak_chain: Vec<CertificateDer<'static>>,
    /// TCG crypto-agile event log, as firmware wrote it.
    pub event_log: Option<Vec<u8>>,
}

/// A quote, what one of its leaves claims, and the proof that it is one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub claims: Claims,
    pub inclusion: Inclusion,
    pub quoted: Arc<Quoted>,
}

impl Evidence {
    /// # Errors
    /// When it is longer than [`EVIDENCE_BYTES_MAX`], of another version, or not exactly what
    /// [`Evidence::encode`] writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        if bytes.len() > EVIDENCE_BYTES_MAX {
            return Err(Rejection::TooLarge(bytes.len()));
        }
        let wire: Wire = minicbor::decode(bytes).map_err(|_| MALFORMED)?;
        if wire.version != VERSION {
            return Err(Rejection::Version(wire.version));
        }
        let evidence = Self::from_wire(wire)?;
        match evidence.encode() == bytes {
            true => Ok(evidence),
            false => Err(MALFORMED.into()),
        }
    }

    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self {
            claims,
            inclusion,
            quoted,
        } = self;
        let bytes = |bytes: &[u8]| ByteVec::from(bytes.to_vec());
        let wire = Wire {
            version: VERSION,
            purpose: claims.purpose as u8,
            caller: claims.caller.as_str().to_owned(),
            node_key: claims.node_key.0.into(),
            exporter: claims.exporter.map(ByteArray::from),
            nonce: bytes(claims.nonce.as_bytes()),
            size: inclusion.size,
            index: inclusion.index,
            nodes: joined(inclusion.nodes.iter().copied()),
            attest: bytes(&quoted.attest),
            signature: bytes(&quoted.signature),
            pcr_mask: quoted.pcrs.selection().mask(),
            pcr_values: joined(quoted.pcrs.iter().map(|(_, value)| value)),
            ak: bytes(quoted.ak.as_bytes()),
            ak_chain: quoted.ak_chain.iter().map(|der| bytes(der)).collect(),
            event_log: quoted.event_log.as_deref().map(bytes),
        };
        minicbor::to_vec(wire).expect("writing into memory does not fail")
    }

    fn from_wire(wire: Wire) -> Result<Self, Malformed> {
        wire.check_bounds()?;
        let malformed = |_| MALFORMED;
        let claims = Claims {
            purpose: Purpose::from_code(wire.purpose).ok_or(MALFORMED)?,
            caller: Caller::new(wire.caller).map_err(malformed)?,
            node_key: Sha256(wire.node_key.into()),
            exporter: wire.exporter.map(ByteArray::into),
            nonce: Nonce::new(Vec::from(wire.nonce)).map_err(malformed)?,
        };
        claims.check_form()?;
        let selection = PcrSelection::from_mask(wire.pcr_mask).ok_or(MALFORMED)?;
        let values = split(&wire.pcr_values)?;
        if selection.indices().count() != values.len() {
            return Err(MALFORMED);
        }
        let chain = wire.ak_chain.into_iter().map(Vec::from);
        Ok(Self {
            claims,
            inclusion: Inclusion {
                size: wire.size,
                index: wire.index,
                nodes: split(&wire.nodes)?,
            },
            quoted: Arc::new(Quoted {
                attest: wire.attest.into(),
                signature: wire.signature.into(),
                pcrs: PcrValues::new(selection.indices().zip(values)),
                ak: AkPublic::parse(&wire.ak)?,
                ak_chain: chain.map(CertificateDer::from).collect(),
                event_log: wire.event_log.map(Vec::from),
            }),
        })
    }
}

const MALFORMED: Malformed = Malformed("Evidence");

/// Field by field as it is sent.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u16,
    #[n(1)]
    purpose: u8,
    #[n(2)]
    caller: String,
    #[n(3)]
    node_key: ByteArray<32>,
    #[n(4)]
    exporter: Option<ByteArray<32>>,
    #[n(5)]
    nonce: ByteVec,
    #[n(6)]
    size: u64,
    #[n(7)]
    index: u64,
    /// 32 bytes a node, from the leaf up.
    #[n(8)]
    nodes: ByteVec,
    #[n(9)]
    attest: ByteVec,
    #[n(10)]
    signature: ByteVec,
    #[n(11)]
    pcr_mask: u32,
    /// 32 bytes a PCR, in ascending order.
    #[n(12)]
    pcr_values: ByteVec,
    #[n(13)]
    ak: ByteVec,
    #[n(14)]
    ak_chain: Vec<ByteVec>,
    #[n(15)]
    event_log: Option<ByteVec>,
}

impl Wire {
    fn check_bounds(&self) -> Result<(), Malformed> {
        let structures = [&self.attest, &self.signature, &self.ak];
        let certificates = self.ak_chain.iter();
        let event_log = self.event_log.as_ref().map_or(0, |log| log.len());
        let within = structures
            .iter()
            .all(|bytes| bytes.len() <= TPM_STRUCTURE_BYTES_MAX)
            && self.ak_chain.len() <= CHAIN_CERTIFICATES_MAX
            && certificates
                .clone()
                .all(|der| der.len() <= CERTIFICATE_BYTES_MAX)
            && event_log <= EVENT_LOG_BYTES_MAX;
        match within {
            true => Ok(()),
            false => Err(MALFORMED),
        }
    }
}

fn joined(digests: impl Iterator<Item = Sha256>) -> ByteVec {
    digests
        .flat_map(|digest| digest.0)
        .collect::<Vec<u8>>()
        .into()
}

fn split(bytes: &[u8]) -> Result<Vec<Sha256>, Malformed> {
    let (digests, []) = bytes.as_chunks::<32>() else {
        return Err(MALFORMED);
    };
    Ok(digests.iter().copied().map(Sha256).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Attester};
    use proptest::prelude::*;

    fn sample() -> Evidence {
        let mut attester = Attester::new("a");
        attester.event_log = Some(vec![5; 40]);
        attester.evidence(testing::challenge(1))
    }

    #[test]
    fn evidence_comes_back_from_its_own_encoding() {
        let evidence = sample();
        assert_eq!(Evidence::parse(&evidence.encode()), Ok(evidence));
    }

    #[test]
    fn evidence_cut_anywhere_or_with_a_byte_more_is_malformed() {
        let bytes = sample().encode();
        for end in 0..bytes.len() {
            assert!(Evidence::parse(&bytes[..end]).is_err(), "{end} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Evidence::parse(&longer), Err(MALFORMED.into()));
    }

    #[test]
    fn evidence_with_an_unknown_field_is_malformed() {
        let mut bytes = sample().encode();
        assert_eq!(
            bytes[0],
            0xb0 - 1,
            "a map of 15: version 1 without an exporter"
        );
        bytes[0] += 1;
        bytes.extend_from_slice(&[0x18, 99, 0]);
        assert_eq!(Evidence::parse(&bytes), Err(MALFORMED.into()));
    }

    #[test]
    fn evidence_of_another_version_says_which() {
        let mut bytes = sample().encode();
        assert_eq!(bytes[1..3], [0, 1], "the key and the version");
        bytes[2] = 2;
        assert_eq!(Evidence::parse(&bytes), Err(Rejection::Version(2)));
    }

    #[test]
    fn evidence_past_its_bound_is_refused_by_its_length() {
        let long = vec![0; EVIDENCE_BYTES_MAX + 1];
        assert_eq!(Evidence::parse(&long), Err(Rejection::TooLarge(long.len())));
        let mut attester = Attester::new("a");
        attester.event_log = Some(vec![5; EVENT_LOG_BYTES_MAX + 1]);
        let bytes = attester.evidence(testing::challenge(1)).encode();
        assert_eq!(Evidence::parse(&bytes), Err(MALFORMED.into()));
    }

    #[test]
    fn local_evidence_that_claims_an_exporter_is_malformed() {
        let mut evidence = sample();
        evidence.claims.exporter = Some([1; 32]);
        assert!(Evidence::parse(&evidence.encode()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_bytes_parse_are_their_own_encoding(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = sample().encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(evidence) = Evidence::parse(&bytes) {
                prop_assert_eq!(evidence.encode(), bytes);
            }
        }
    }
}
