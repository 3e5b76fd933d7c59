//! A node's own X.509-SVID, checked as strictly as a peer would check it.

use crate::error::{StoreError, SvidError};
use crate::files::{self, SvidPaths};
use crate::limits::CHAIN_CERTIFICATES_MAX;
use crate::trust::{Trust, key_hash};
use crate::verify::{self, verify_peer};
use kedge_model::SpiffeId;
use rcgen::PublicKeyData;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use zeroize::Zeroizing;

/// What a daemon needs to make links: its chain, key and anchors. Whoever holds one knows that a
/// peer with the same anchors would have accepted it at the time of loading.
#[derive(Debug)]
pub struct NodeSvid {
    id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    trust: Trust,
    not_after: UnixTime,
}

impl NodeSvid {
    /// Reads and checks the SVID of the node `expected`.
    ///
    /// # Errors
    /// When a file cannot be read, or for the reasons of [`NodeSvid::parse`].
    pub fn load(paths: &SvidPaths, expected: &SpiffeId, now: UnixTime) -> Result<Self, StoreError> {
        let chain = files::read(&paths.certificate)?;
        let key = Zeroizing::new(files::read(&paths.key)?);
        let bundle = files::read(&paths.bundle)?;
        Self::parse([&chain, &key, &bundle], expected, now)
    }

    /// Checks an SVID given as PEM: chain, key and bundle, in this order.
    ///
    /// # Errors
    /// When the PEM is not of the expected kind, a peer would refuse the chain, the certificate is
    /// another node's, or the key does not belong to it.
    pub fn parse(
        [chain, key, bundle]: [&[u8]; 3],
        expected: &SpiffeId,
        now: UnixTime,
    ) -> Result<Self, StoreError> {
        let chain = certificates(chain, "certificate file", CHAIN_CERTIFICATES_MAX)?;
        let trust = Trust::parse(bundle, "")?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| StoreError::Pem {
            what: "private key",
            origin: "key file",
        })?;
        let (leaf, intermediates) = chain.split_first().ok_or(SvidError::Malformed)?;
        let us = verify_peer(leaf, intermediates, &trust, &expected.trust_domain(), now)?;
        if us.id() != expected {
            let found = us.id().clone();
            return Err(SvidError::NotUs {
                found,
                expected: expected.clone(),
            }
            .into());
        }
        require_key_of(leaf, &key)?;
        Ok(Self {
            id: us.id().clone(),
            not_after: us.not_after(),
            chain,
            key,
            trust,
        })
    }

    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The leaf, then its intermediates; never empty.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// SHA-256 of the leaf's SubjectPublicKeyInfo (DER).
    #[must_use]
    pub fn key_hash(&self) -> [u8; 32] {
        let leaf = verify::parse(&self.chain[0]).expect("it was verified");
        key_hash(leaf.public_key().raw)
    }

    #[must_use]
    pub fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// That of its own bundle, which revokes nothing.
    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }
}

pub(crate) fn certificates(
    pem: &[u8],
    origin: &'static str,
    limit: usize,
) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let found = CertificateDer::pem_slice_iter(pem)
        .take(limit + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| StoreError::Pem {
            what: "certificate",
            origin,
        })?;
    match found.len() {
        0 => Err(StoreError::Pem {
            what: "certificate",
            origin,
        }),
        count if count > limit => Err(StoreError::TooMany {
            what: origin,
            limit,
        }),
        _ => Ok(found),
    }
}

/// The public half of `key` is the one in the certificate.
pub(crate) fn require_key_of(
    leaf: &CertificateDer<'_>,
    key: &PrivateKeyDer<'_>,
) -> Result<(), StoreError> {
    let pair = rcgen::KeyPair::try_from(key).map_err(|_| StoreError::Pem {
        what: "private key",
        origin: "key file",
    })?;
    let certificate = verify::parse(leaf)?;
    if *certificate.public_key().raw != *pair.subject_public_key_info() {
        return Err(SvidError::KeyMismatch.into());
    }
    Ok(())
}
