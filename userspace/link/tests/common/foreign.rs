//! A TLS client that is no kedged: believes everybody, and is configured by each test.

use super::{Authority, DAY, start, today};
use kedge_link::wire::{Hello, InstanceId};
use kedge_link::{LinkConfig, LinkError, Session};
use kedge_model::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Instant;

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
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// How a foreign client differs from a kedged.
pub struct Foreign<'a> {
    pub groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>,
    pub identity: Option<(&'a Authority, SpiffeId)>,
    pub alpn: Option<&'a [u8]>,
}

impl<'a> Foreign<'a> {
    /// Like a kedged with this identity.
    pub fn node(authority: &'a Authority, id: SpiffeId) -> Self {
        Self {
            groups: vec![kx_group::X25519MLKEM768],
            identity: Some((authority, id)),
            alpn: Some(b"kedge/1"),
        }
    }

    fn connect(&self) -> ClientConnection {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups.clone_from(&self.groups);
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelievesAll));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((authority, id)) => {
                let issued = authority.ca.issue(id, DAY, today()).expect("a leaf");
                let pem = issued.certificate_pem.as_bytes();
                let chain = vec![CertificateDer::from_pem_slice(pem).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("a matching key")
            }
        };
        config.enable_secret_extraction = true;
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("kedge").expect("literal");
        ClientConnection::new(Arc::new(config), name).expect("a connection")
    }

    /// The server's error when this client speaks to it, writing `frames` as soon as it may.
    pub fn refusal(&self, config: &Arc<LinkConfig>, frames: &[u8]) -> LinkError {
        match self.converse(config, frames) {
            Err(error) => error,
            Ok(_) => panic!("the server took it"),
        }
    }

    /// The client after a conversation that ended because both sides were silent.
    pub fn converse(
        &self,
        config: &Arc<LinkConfig>,
        frames: &[u8],
    ) -> Result<ClientConnection, LinkError> {
        let now = Instant::now();
        let mut server = Session::server(config, start(now, 0x5e)).expect("a session");
        let mut client = self.connect();
        std::io::Write::write_all(&mut client.writer(), frames).expect("buffered");
        loop {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).expect("a Vec");
            }
            let silent = bytes.is_empty();
            server.handle_input(now, &bytes)?;
            bytes.clear();
            if !server.poll_transmit(&mut bytes) && silent {
                return Ok(client);
            }
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                client.read_tls(&mut bytes).expect("a slice");
                client.process_new_packets().expect("the server is honest");
            }
        }
    }
}

/// What a kedged with other preferences than ours might say; agrees with what TLS negotiates.
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
    }
}
