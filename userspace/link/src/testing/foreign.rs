//! A TLS client that is no kedged: believes everybody, and differs as each test wants.

use crate::wire::{Hello, InstanceId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::sync::Arc;

/// How a foreign client differs from a kedged.
pub struct Foreign {
    pub groups: Vec<&'static dyn SupportedKxGroup>,
    /// A certificate, and a key that may be somebody else's.
    pub identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    pub alpn: Option<&'static [u8]>,
}

impl Foreign {
    /// Like a kedged with this certificate.
    #[must_use]
    pub fn with(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Self {
        Self {
            groups: vec![kx_group::X25519MLKEM768],
            identity: Some((certificate, key)),
            alpn: Some(b"kedge/1"),
        }
    }

    /// The beginning of a connection to whoever answers.
    ///
    /// # Errors
    /// When the library takes the key for none, or finds nothing to offer.
    pub fn connect(&self) -> Result<ClientConnection, Error> {
        let provider = Arc::new(CryptoProvider {
            kx_groups: self.groups.clone(),
            ..aws_lc_rs::default_provider()
        });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelievesAll));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = provider.key_provider.load_private_key(key.clone_key())?;
                let certified = CertifiedKey::new(vec![certificate.clone()], key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.enable_secret_extraction = true;
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("kedge").expect("a valid DNS name");
        ClientConnection::new(Arc::new(config), name)
    }
}

/// What a kedged with other preferences than ours might say; agrees with what TLS negotiates.
#[must_use]
pub fn hello() -> Hello {
    Hello {
        versions: vec![1],
        groups: vec![0x11ec],
        tls_suites: vec![0x1302, 0x1301, 0x1303],
        record_suites: vec![0x1302],
        instance: InstanceId([1; 16]),
        random: [1; 32],
        renews: None,
        successor_of: None,
        rekey: None,
        attesting: None,
    }
}

#[derive(Debug)]
struct BelievesAll;

impl ServerCertVerifier for BelievesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
