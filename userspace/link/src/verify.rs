//! Who may be at the other end: a node of our trust domain, the one that was dialled, not us.

use crate::config::LinkConfig;
use crate::error::PeerUnauthenticated;
use kedge_identity::{PeerIdentity, verify_peer};
use kedge_model::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Checks the peer's chain during the handshake and keeps the identity that it proved.
pub(crate) struct NodeVerifier {
    config: Arc<LinkConfig>,
    expected: Option<SpiffeId>,
    verified: OnceLock<PeerIdentity>,
}

impl NodeVerifier {
    /// `expected` is the node that was dialled; the accepting side takes any other node.
    pub(crate) fn new(config: &Arc<LinkConfig>, expected: Option<SpiffeId>) -> Arc<Self> {
        Arc::new(Self {
            config: Arc::clone(config),
            expected,
            verified: OnceLock::new(),
        })
    }

    /// The peer, once the handshake is complete.
    pub(crate) fn peer(&self) -> Option<&PeerIdentity> {
        self.verified.get()
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let peer = self
            .identify(end_entity, intermediates, now)
            .map_err(|reason| {
                Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
            })?;
        self.verified
            .set(peer)
            .map_err(|_| Error::General("certificate verified twice".into()))
    }

    fn identify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, PeerUnauthenticated> {
        let (trust, trust_domain) = (&self.config.trust, &self.config.trust_domain);
        let peer = verify_peer(end_entity, intermediates, trust, trust_domain, now)
            .map_err(|error| PeerUnauthenticated::Svid(Arc::new(error)))?;
        if *peer.id() == self.config.id {
            return Err(PeerUnauthenticated::OurOwnId(peer.id().clone()));
        }
        match &self.expected {
            Some(expected) if expected != peer.id() => Err(PeerUnauthenticated::OtherNode {
                expected: expected.clone(),
                found: peer.id().clone(),
            }),
            _ => Ok(peer),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.config.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    /// The provider's schemes without those that TLS 1.3 forbids in CertificateVerify (RFC 8446,
    /// 4.2.3): RSA PKCS#1 and anything with SHA-1.
    fn schemes(&self) -> Vec<SignatureScheme> {
        let allowed = |scheme: &SignatureScheme| {
            !matches!(
                scheme,
                SignatureScheme::RSA_PKCS1_SHA1
                    | SignatureScheme::RSA_PKCS1_SHA256
                    | SignatureScheme::RSA_PKCS1_SHA384
                    | SignatureScheme::RSA_PKCS1_SHA512
                    | SignatureScheme::ECDSA_SHA1_Legacy
            )
        };
        let algorithms = &self.config.provider.signature_verification_algorithms;
        algorithms
            .supported_schemes()
            .into_iter()
            .filter(allowed)
            .collect()
    }
}

/// No TLS 1.2 is compiled in; this refuses should that ever change.
fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(
        PeerIncompatible::ServerDoesNotSupportTls12Or13,
    ))
}

impl fmt::Debug for NodeVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeVerifier")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for NodeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
