//! From a presented certificate chain to a [`PeerIdentity`], or to the reason why not.

use crate::error::SvidError;
use crate::trust::{Trust, key_hash};
use kedge_model::{NodeName, SpiffeId, TrustDomain};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage,
    RequiredEkuNotFoundContext,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

const BOTH_ROLES: &str = "both serverAuth and clientAuth";

/// A node that has shown a valid X.509-SVID. Only [`verify_peer`] makes one, so holding it is the
/// proof that the checks were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    id: SpiffeId,
    name: NodeName,
    not_after: UnixTime,
    /// As it was shown: never empty.
    chain: Vec<CertificateDer<'static>>,
}

impl PeerIdentity {
    /// Whether what was shown would be accepted again, by what is believed and the time now.
    ///
    /// # Errors
    /// As of [`verify_peer`].
    pub fn verify_again(&self, trust: &Trust, now: UnixTime) -> Result<(), SvidError> {
        let (leaf, intermediates) = self.chain.split_first().ok_or(SvidError::Malformed)?;
        verify_peer(leaf, intermediates, trust, &self.id.trust_domain(), now).map(drop)
    }

    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// SHA-256 of the leaf's SubjectPublicKeyInfo (DER).
    #[must_use]
    pub fn key_hash(&self) -> [u8; 32] {
        let leaf = parse(&self.chain[0]).expect("it was verified");
        key_hash(leaf.public_key().raw)
    }

    /// When the proof ends: a link must not outlive it.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }
}

/// Checks a node's chain: signatures up to an anchor, time, a leaf that is no CA, exactly one URI
/// and no other subject name, the form `/kedge/node/<name>`, and the trust domain.
///
/// # Errors
/// The first rule that the chain breaks.
pub fn verify_peer(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    trust: &Trust,
    trust_domain: &TrustDomain,
    now: UnixTime,
) -> Result<PeerIdentity, SvidError> {
    let leaf = parse(end_entity)?;
    verify_chain(end_entity, intermediates, trust.anchors(), now)?;
    trust.check_leaf(end_entity)?;
    // The last second of RFC 5280 is inclusive; a link that must end in it is not made in it.
    let not_after = not_after(&leaf);
    if now >= not_after {
        return Err(SvidError::Expired { not_after, now });
    }
    check_usage(&leaf)?;
    let id = sole_uri(&leaf)?;
    if id.trust_domain() != *trust_domain {
        return Err(SvidError::TrustDomain {
            id,
            expected: trust_domain.clone(),
        });
    }
    let Some(name) = id.node_name() else {
        return Err(SvidError::NotANode(id));
    };
    trust.check_node(&id)?;
    let chain = [end_entity].into_iter().chain(intermediates);
    Ok(PeerIdentity {
        chain: chain.map(|der| der.clone().into_owned()).collect(),
        id,
        name,
        not_after,
    })
}

/// The certificate and nothing behind it.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, SvidError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(SvidError::Malformed),
    }
}

fn verify_chain(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now: UnixTime,
) -> Result<(), SvidError> {
    EndEntityCert::try_from(end_entity)
        .map_err(|_| SvidError::Malformed)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            anchors,
            intermediates,
            now,
            BothRoles,
            None,
            None,
        )
        .map(|_path| ())
        .map_err(|error| chain_error(error, now))
}

fn chain_error(error: webpki::Error, now: UnixTime) -> SvidError {
    match error {
        webpki::Error::CertExpired { not_after, .. } => SvidError::Expired { not_after, now },
        webpki::Error::CertNotValidYet { not_before, .. } => {
            SvidError::NotYetValid { not_before, now }
        }
        webpki::Error::CaUsedAsEndEntity => SvidError::IsCa,
        // The second is a CA of the same name with another key.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            SvidError::Untrusted
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => SvidError::Usage(BOTH_ROLES),
        other => SvidError::Chain(other),
    }
}

/// Each daemon of a pair may be the TLS client, so every certificate of the chain that limits its
/// extended usages must allow both.
struct BothRoles;

impl ExtendedKeyUsageValidator for BothRoles {
    fn validate(&self, usages: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let (mut limits, mut server, mut client) = (false, false, false);
        for usage in usages {
            let oid = usage?.to_decoded_oid();
            limits = true;
            server |= oid == KeyUsage::SERVER_AUTH_REPR;
            client |= oid == KeyUsage::CLIENT_AUTH_REPR;
        }
        if limits && !(server && client) {
            return Err(webpki::Error::RequiredEkuNotFoundContext(
                RequiredEkuNotFoundContext {
                    required: if server {
                        KeyUsage::client_auth()
                    } else {
                        KeyUsage::server_auth()
                    },
                    present: Vec::new(),
                },
            ));
        }
        Ok(())
    }
}

/// X.509-SVID 4.3 and 4.4: signs TLS handshakes, signs no certificates.
fn check_usage(leaf: &X509Certificate<'_>) -> Result<(), SvidError> {
    let key_usage = leaf.key_usage().map_err(|_| SvidError::Malformed)?;
    let Some(usage) = key_usage.map(|extension| extension.value) else {
        return Err(SvidError::Usage("digitalSignature"));
    };
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::IsCa);
    }
    if !usage.digital_signature() {
        return Err(SvidError::Usage("digitalSignature"));
    }
    let extended = leaf
        .extended_key_usage()
        .map_err(|_| SvidError::Malformed)?;
    if !extended.is_some_and(|usage| usage.value.server_auth && usage.value.client_auth) {
        return Err(SvidError::Usage(BOTH_ROLES));
    }
    Ok(())
}

fn sole_uri(leaf: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let extension = leaf
        .subject_alternative_name()
        .map_err(|_| SvidError::Malformed)?;
    let names = extension.map_or(&[][..], |san| &san.value.general_names);
    if let [GeneralName::URI(uri)] = names {
        return SpiffeId::parse(uri).map_err(SvidError::Id);
    }
    let uris = names
        .iter()
        .filter(|name| matches!(name, GeneralName::URI(_)))
        .count();
    Err(SvidError::SubjectNames {
        uris,
        others: names.len() - uris,
    })
}

/// The end of a leaf's life; before 1970 counts as 1970, which is expired either way.
pub(crate) fn not_after(leaf: &X509Certificate<'_>) -> UnixTime {
    let seconds = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}
