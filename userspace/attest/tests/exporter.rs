//! Goal: what binds Evidence to a link comes from that link and from nothing else.
//!
//! ```text
//!   ClientConnection ◄── TLS 1.3 in memory ──► ServerConnection
//!          └─ LinkExporter        equal        LinkExporter ─┘
//! ```

use kedge_attest::{ChallengeError, LinkExporter};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use std::sync::Arc;

/// A new pair, before its first byte.
fn pair() -> (ClientConnection, ServerConnection) {
    let key = rcgen::KeyPair::generate().expect("the library makes keys");
    let params = rcgen::CertificateParams::new(vec!["kedge".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let provider = Arc::new(default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS #8");
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate and its key");
    let name = ServerName::try_from("kedge").expect("a name");
    let client = ClientConnection::new(Arc::new(client), name).expect("a client");
    let server = ServerConnection::new(Arc::new(server)).expect("a server");
    (client, server)
}

fn handshake(client: &mut ClientConnection, server: &mut ServerConnection) {
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("in memory");
        server.read_tls(&mut &wire[..]).expect("in memory");
        server.process_new_packets().expect("honest");
        wire.clear();
        server.write_tls(&mut wire).expect("in memory");
        client.read_tls(&mut &wire[..]).expect("in memory");
        client.process_new_packets().expect("honest");
    }
}

#[test]
fn both_ends_of_a_link_have_the_same_exporter_and_no_other_link_has() {
    let (mut client, mut server) = pair();
    handshake(&mut client, &mut server);
    let ours = LinkExporter::of(&client).expect("complete");
    assert!(ours == LinkExporter::of(&server).expect("complete"));
    let (mut other, mut peer) = pair();
    handshake(&mut other, &mut peer);
    assert!(ours != LinkExporter::of(&other).expect("complete"));
}

#[test]
fn a_link_has_no_exporter_before_its_handshake() {
    let (client, _server) = pair();
    let refused = LinkExporter::of(&client).err();
    assert!(matches!(refused, Some(ChallengeError::Exporter(_))));
}
