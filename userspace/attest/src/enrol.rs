//! Enrolment: how a CA knows that an AK lives in the TPM that an EK certificate is about.
//!
//! ```text
//!   node                                          CA
//!   EK certificate, AK public ──────────────────► Enrolment::begin: roots, attributes, a secret
//!   TPM2_ActivateCredential ◄── Credential ────── make_credential: only that TPM with that AK
//!   the secret ─────────────────────────────────► Enrolment::finish ─► ApprovedAk ─► certificate
//! ```
//!
//! An EK cannot sign; it can only decrypt what was made for its TPM and for the name of one key there
//! (TPM 2.0 Part 1, 24, "Credential Protection").

use crate::ak::AkPublic;
use crate::chain::{Roots, Usage, key_of};
use crate::credential::{Credential, EkPublic, SECRET_LEN, make_credential};
use crate::digest::Sha256;
use crate::error::{ChainError, Rejection};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use kedge_model::SpiffeId;
use rustls_pki_types::{CertificateDer, UnixTime};
use zeroize::Zeroizing;

/// What a node shows that wants its AK certified.
#[derive(Clone, Debug)]
pub struct Request {
    pub node: SpiffeId,
    /// The EK's certificate, then its intermediates.
    pub ek_chain: Vec<CertificateDer<'static>>,
    pub ak: AkPublic,
}

/// A request that was found in order, and the secret that is still to come back.
pub struct Enrolment {
    secret: Zeroizing<[u8; SECRET_LEN]>,
    approved: ApprovedAk,
}

/// An AK that is proven to be in the TPM of an EK. Only [`Enrolment::finish`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovedAk {
    node: SpiffeId,
    ak: AkPublic,
    ek: Sha256,
}

/// Why an AK is not certified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    #[error("{0} is not a node's identity (/kedge/node/<name>)")]
    NotANode(SpiffeId),
    #[error("the EK's certificate: {0}")]
    EkChain(#[source] ChainError),
    #[error("the EK is neither RSA of 2,048 bits nor ECC P-384")]
    EkKind,
    #[error(transparent)]
    Ak(Rejection),
    #[error("the TPM of the EK does not have this AK: what was sealed for it did not come back")]
    NotInThisTpm,
    #[error("the cryptographic library failed")]
    Library,
}

impl EnrolError {
    /// Short, stable name: a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotANode(_) => "not-a-node",
            Self::EkChain(_) => "ek-untrusted",
            Self::EkKind => "ek-kind",
            Self::Ak(rejection) => rejection.label(),
            Self::NotInThisTpm => "ak-not-in-tpm",
            Self::Library => "internal",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotANode(_) => "enrol nodes only: spiffe://<trust domain>/kedge/node/<name>",
            Self::EkChain(_) => {
                "add the root of the TPM's maker to the EK roots, after making sure that it is"
            }
            Self::EkKind => "let the node show its EK certificate of one of these kinds",
            Self::Ak(rejection) => rejection.remedy(),
            Self::NotInThisTpm => {
                "enrol again from the machine itself; if it stays, somebody uses the EK certificate \
                 of another machine"
            }
            Self::Library => "try again; if it stays, read the CA's log",
        }
    }
}

impl Enrolment {
    /// Checks EK and AK, and seals a new secret for the two of them together.
    ///
    /// # Errors
    /// When the EK is not certified up to `roots`, or the AK is none.
    pub fn begin(
        request: Request,
        roots: &Roots,
        now: UnixTime,
    ) -> Result<(Self, Credential), EnrolError> {
        let Request { node, ek_chain, ak } = request;
        if node.node_name().is_none() {
            return Err(EnrolError::NotANode(node));
        }
        roots
            .verify(&ek_chain, Usage::Ek, now)
            .map_err(EnrolError::EkChain)?;
        let spki = key_of(&ek_chain[0]).map_err(EnrolError::EkChain)?;
        let ek = EkPublic::parse(&spki)?;
        ak.require_ak().map_err(EnrolError::Ak)?;
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        aws_lc_rs::rand::fill(&mut secret[..]).map_err(|_| EnrolError::Library)?;
        let credential = make_credential(&ek, ak.name(), &secret)?;
        let ek = Sha256::of(&[&spki]);
        Ok((
            Self {
                secret,
                approved: ApprovedAk { node, ak, ek },
            },
            credential,
        ))
    }

    /// Takes what the node's TPM has opened.
    ///
    /// # Errors
    /// When it is not the secret.
    pub fn finish(self, opened: &[u8]) -> Result<ApprovedAk, EnrolError> {
        verify_slices_are_equal(&self.secret[..], opened)
            .map(|()| self.approved)
            .map_err(|_| EnrolError::NotInThisTpm)
    }
}

impl ApprovedAk {
    #[must_use]
    pub fn node(&self) -> &SpiffeId {
        &self.node
    }

    #[must_use]
    pub fn ak(&self) -> &AkPublic {
        &self.ak
    }

    /// SHA-256 of the EK's SubjectPublicKeyInfo: by it a CA can hold a node to one machine.
    #[must_use]
    pub fn ek(&self) -> Sha256 {
        self.ek
    }
}
