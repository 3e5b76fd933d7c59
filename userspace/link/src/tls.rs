//! The one TLS configuration that a link may have: 1.3, post-quantum, mutual, nothing remembered.

use crate::config::LinkConfig;
use crate::error::LinkError;
use crate::verify::NodeVerifier;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use rustls_pki_types::{ServerName, UnixTime};
use std::sync::Arc;

/// The ALPN protocol. Its number is the major version of everything in docs/protocol.md.
pub(crate) const ALPN: &[u8] = b"kedge/1";

/// Only what a link may use is in the provider, so nothing else can be negotiated: a list's order
/// is no downgrade defence, absence is.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    }
}

/// Lets the crypto library seed its generator on this thread now: that takes 40 ms of CPU once,
/// and would otherwise be part of the first handshake.
pub(crate) fn seed_random(provider: &CryptoProvider) -> Result<(), LinkError> {
    provider
        .secure_random
        .fill(&mut [0; 32])
        .map_err(|error| LinkError::Internal(error.into()))
}

/// The dialling side. Certificates are checked as of `at`.
pub(crate) fn connect(
    config: &LinkConfig,
    verifier: Arc<NodeVerifier>,
    at: UnixTime,
) -> Result<Connection, rustls::Error> {
    let key = SingleCertAndKey::from(Arc::clone(&config.certified_key));
    let provider = Arc::clone(&config.provider);
    let mut tls = ClientConfig::builder_with_details(provider, Arc::new(FixedTime(at)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(key));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    // The peer is named by its SPIFFE ID in the verifier; a server name would only be metadata.
    tls.enable_sni = false;
    let name = ServerName::try_from("kedge").expect("a valid DNS name");
    ClientConnection::new(Arc::new(tls), name).map(Connection::Client)
}

/// The accepting side.
pub(crate) fn accept(
    config: &LinkConfig,
    verifier: Arc<NodeVerifier>,
    at: UnixTime,
) -> Result<Connection, rustls::Error> {
    let key = SingleCertAndKey::from(Arc::clone(&config.certified_key));
    let provider = Arc::clone(&config.provider);
    let mut tls = ServerConfig::builder_with_details(provider, Arc::new(FixedTime(at)))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(key));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    // Resumption would bypass expiry, revocation and attestation of the peer's SVID.
    tls.send_tls13_tickets = 0;
    ServerConnection::new(Arc::new(tls)).map(Connection::Server)
}

/// The time at which the session began: a handshake lasts five seconds at most.
#[derive(Debug)]
struct FixedTime(UnixTime);

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}
