//! Certificate chains of AKs and EKs, up to roots that are pinned.

use crate::error::ChainError;
use crate::limits::{CERTIFICATE_BYTES_MAX, CHAIN_CERTIFICATES_MAX};
use kedge_model::SpiffeId;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// What a certificate says it is for: TCG EK Credential Profile, 3.2.16 and its sibling for AKs.
#[derive(Clone, Copy)]
pub(crate) enum Usage {
    /// tcg-kp-EKCertificate.
    Ek,
    /// tcg-kp-AIKCertificate.
    Ak,
}

impl Usage {
    fn oid(self) -> &'static str {
        match self {
            Self::Ek => "2.23.133.8.1",
            Self::Ak => "2.23.133.8.3",
        }
    }

    /// The encoded value of the OID, without tag and length.
    fn key_usage(self) -> KeyUsage {
        match self {
            Self::Ek => KeyUsage::required_if_present(&[0x67, 0x81, 0x05, 0x08, 0x01]),
            Self::Ak => KeyUsage::required_if_present(&[0x67, 0x81, 0x05, 0x08, 0x03]),
        }
    }
}

/// Roots that AKs or EKs are certified by. An empty set believes nobody.
#[derive(Clone, Debug, Default)]
pub struct Roots(Vec<TrustAnchor<'static>>);

impl Roots {
    /// # Errors
    /// When a certificate is none that others can be verified against.
    pub fn new<'a>(
        certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
    ) -> Result<Self, ChainError> {
        let anchor = |certificate| {
            webpki::anchor_from_trusted_cert(certificate)
                .map(|anchor| anchor.to_owned())
                .map_err(|_| ChainError::Malformed)
        };
        certificates
            .into_iter()
            .map(anchor)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Verifies a chain, leaf first. The leaf itself must name the usage; webpki only asks that of
    /// intermediates that name any.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: UnixTime,
    ) -> Result<(), ChainError> {
        let is_large = |der: &CertificateDer<'_>| der.len() > CERTIFICATE_BYTES_MAX;
        if chain.len() > CHAIN_CERTIFICATES_MAX || chain.iter().any(is_large) {
            return Err(ChainError::TooLong(chain.len()));
        }
        let (leaf, intermediates) = chain.split_first().ok_or(ChainError::Missing)?;
        EndEntityCert::try_from(leaf)
            .map_err(|_| ChainError::Malformed)?
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &self.0,
                intermediates,
                now,
                usage.key_usage(),
                None,
                None,
            )
            .map_err(|error| chain_error(error, usage))?;
        let parsed = parse(leaf)?;
        let extension = parsed
            .extended_key_usage()
            .map_err(|_| ChainError::Malformed)?;
        let named = extension.is_some_and(|extension| {
            let others = &extension.value.other;
            others.iter().any(|oid| oid.to_id_string() == usage.oid())
        });
        match named {
            true => Ok(()),
            false => Err(ChainError::Usage(usage.oid())),
        }
    }
}

fn chain_error(error: webpki::Error, usage: Usage) -> ChainError {
    match error {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
            ChainError::Time
        }
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            ChainError::UnknownRoot
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => ChainError::Usage(usage.oid()),
        other => ChainError::Chain(other),
    }
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, ChainError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(ChainError::Malformed),
    }
}

/// DER of the key that a certificate is about.
pub(crate) fn key_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, ChainError> {
    parse(certificate).map(|parsed| parsed.public_key().raw.to_vec())
}

/// The node that an AK's certificate names: its one subject alternative name.
pub(crate) fn node_of(certificate: &CertificateDer<'_>) -> Result<SpiffeId, ChainError> {
    let parsed = parse(certificate)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| ChainError::Malformed)?;
    match names.map_or(&[][..], |san| &san.value.general_names) {
        [GeneralName::URI(uri)] => SpiffeId::parse(uri)
            .ok()
            .filter(|id| id.node_name().is_some())
            .ok_or(ChainError::NoNode),
        _ => Err(ChainError::NoNode),
    }
}
