//! Conversations of a foreign client with a kedged's session.

use super::{Authority, DAY, start, today};
use kedge_link::testing::foreign::Foreign;
use kedge_link::{LinkConfig, LinkError, Session};
use kedge_model::SpiffeId;
use rustls::ClientConnection;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::Instant;

/// Like a kedged with this identity.
pub fn node(authority: &Authority, id: &SpiffeId) -> Foreign {
    let issued = authority.ca.issue(id, DAY, today()).expect("a leaf");
    let pem = issued.certificate_pem.as_bytes();
    let certificate = CertificateDer::from_pem_slice(pem).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
    Foreign::with(certificate, key)
}

/// The server's error when this client speaks to it, writing `frames` as soon as it may.
pub fn refusal(client: &Foreign, config: &Arc<LinkConfig>, frames: &[u8]) -> LinkError {
    match converse(client, config, frames) {
        Err(error) => error,
        Ok(_) => panic!("the server took it"),
    }
}

/// The client after a conversation that ended because both sides were silent.
pub fn converse(
    client: &Foreign,
    config: &Arc<LinkConfig>,
    frames: &[u8],
) -> Result<ClientConnection, LinkError> {
    let now = Instant::now();
    let mut server = Session::server(config, start(now, 0x5e)).expect("a session");
    let mut client = client.connect().expect("a connection");
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
