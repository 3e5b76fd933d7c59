//! Goal: our records are those of TLS 1.3 itself. A real rustls connection logs its traffic
//! secrets; what it writes and what we seal under the same secret must be the same bytes, and each
//! must open what the other sealed.
//!
//! ```text
//!   rustls client ◄── handshake in memory ──► rustls server
//!        └── CLIENT_TRAFFIC_SECRET_0, SERVER_TRAFFIC_SECRET_0 ──► Sealer, Unsealer
//! ```

use kedge_model::Suite;
use kedge_record::{
    ContentType, HEADER_LEN, Limits, OVERHEAD, Opened, Sealer, TrafficSecret, Unsealer, deframe,
};
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::{
    ClientConfig, ClientConnection, KeyLog, RootCertStore, ServerConfig, ServerConnection,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
struct Secrets(Mutex<HashMap<String, Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0
            .lock()
            .expect("no panic")
            .insert(label.to_owned(), secret.to_vec());
    }
}

struct Tls {
    suite: Suite,
    client: ClientConnection,
    server: ServerConnection,
    secrets: Arc<Secrets>,
}

impl Tls {
    fn new(suite: Suite) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["kedge".into()]).expect("a leaf");
        let certificate = certified.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate");
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![match suite {
            Suite::Aes256Gcm => cipher_suite::TLS13_AES_256_GCM_SHA384,
            Suite::Aes128Gcm => cipher_suite::TLS13_AES_128_GCM_SHA256,
            Suite::ChaCha20Poly1305 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        }];
        let provider = Arc::new(provider);
        let secrets = Arc::new(Secrets::default());
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.key_log = Arc::<Secrets>::clone(&secrets);
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], certified.signing_key.into())
            .expect("a matching key");
        server.send_tls13_tickets = 0;
        let name = "kedge".try_into().expect("a name");
        let mut tls = Self {
            suite,
            client: ClientConnection::new(Arc::new(client), name).expect("a connection"),
            server: ServerConnection::new(Arc::new(server)).expect("a connection"),
            secrets,
        };
        while tls.client.is_handshaking() || tls.server.is_handshaking() {
            let bytes = tls.client_writes();
            tls.server_reads(&bytes);
            let bytes = tls.server_writes();
            tls.client_reads(&bytes);
        }
        tls
    }

    fn secret(&self, label: &str) -> TrafficSecret {
        let secrets = self.secrets.0.lock().expect("no panic");
        TrafficSecret::new(self.suite, &secrets[label])
    }

    fn client_secret(&self) -> TrafficSecret {
        self.secret("CLIENT_TRAFFIC_SECRET_0")
    }

    fn client_writes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).expect("a Vec");
        }
        bytes
    }

    fn server_writes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut bytes).expect("a Vec");
        }
        bytes
    }

    fn client_reads(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.client.read_tls(&mut bytes).expect("a slice");
            self.client.process_new_packets().expect("authentic");
        }
    }

    /// What the server understood.
    fn server_reads(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut plaintext = Vec::new();
        while !bytes.is_empty() {
            self.server.read_tls(&mut bytes).expect("a slice");
            let state = self.server.process_new_packets().expect("authentic");
            let start = plaintext.len();
            plaintext.resize(start + state.plaintext_bytes_to_read(), 0);
            self.server
                .reader()
                .read_exact(&mut plaintext[start..])
                .expect("as announced");
        }
        plaintext
    }
}

fn sealed(sealer: &mut Sealer, content: &[u8]) -> Vec<u8> {
    let mut slot = vec![0; content.len() + OVERHEAD];
    slot[HEADER_LEN..][..content.len()].copy_from_slice(content);
    let len = sealer
        .seal(ContentType::ApplicationData, &mut slot, content.len())
        .expect("budget");
    assert_eq!(len, slot.len());
    slot
}

fn contents() -> Vec<Vec<u8>> {
    [1, 2, 15, 16, 17, 255, 1_024, 16_384]
        .map(|len| vec![0x5a; len])
        .to_vec()
}

#[test]
fn records_are_byte_identical_to_those_of_rustls() {
    for suite in Suite::ALL {
        let mut tls = Tls::new(suite);
        let mut sealer = Sealer::new(tls.client_secret());
        for content in contents() {
            tls.client.writer().write_all(&content).expect("buffered");
            assert_eq!(
                sealed(&mut sealer, &content),
                tls.client_writes(),
                "{suite}"
            );
        }
    }
}

#[test]
fn records_after_a_key_update_are_byte_identical_too() {
    for suite in Suite::ALL {
        let mut tls = Tls::new(suite);
        let mut sealer = Sealer::new(tls.client_secret());
        tls.client.refresh_traffic_keys().expect("TLS 1.3");
        // rustls asks for an update in return, which we never do: the KeyUpdates differ.
        let update = tls.client_writes();
        let mut slot = [0; OVERHEAD + 5];
        assert_eq!(sealer.seal_key_update(&mut slot), Ok(update.len()));
        tls.client.writer().write_all(b"after").expect("buffered");
        assert_eq!(
            sealed(&mut sealer, b"after"),
            tls.client_writes(),
            "{suite}"
        );
    }
}

#[test]
fn rustls_opens_our_records_our_key_update_and_our_close_notify() {
    for suite in Suite::ALL {
        let mut tls = Tls::new(suite);
        let mut sealer = Sealer::new(tls.client_secret());
        for content in contents() {
            let record = sealed(&mut sealer, &content);
            assert_eq!(tls.server_reads(&record), content, "{suite}");
        }
        let mut slot = [0; OVERHEAD + 5];
        let len = sealer.seal_key_update(&mut slot).expect("budget");
        assert_eq!(tls.server_reads(&slot[..len]), b"");
        let record = sealed(&mut sealer, b"under the next key");
        assert_eq!(tls.server_reads(&record), b"under the next key");
        let len = sealer.seal_close_notify(&mut slot).expect("budget");
        tls.server_reads(&slot[..len]);
        assert_eq!(tls.server.reader().read(&mut [0]).expect("a clean end"), 0);
    }
}

#[test]
fn we_open_records_and_close_notify_of_rustls() {
    for suite in Suite::ALL {
        let mut tls = Tls::new(suite);
        let secret = tls.secret("SERVER_TRAFFIC_SECRET_0");
        let mut unsealer = Unsealer::with_limits(secret, Limits::PROTOCOL);
        for content in contents() {
            tls.server.writer().write_all(&content).expect("buffered");
            let mut record = tls.server_writes();
            assert_eq!(deframe(&record), Ok(Some(record.len())));
            assert_eq!(
                unsealer.open(&mut record),
                Ok(Opened::Data(&content)),
                "{suite}"
            );
        }
        tls.server.send_close_notify();
        assert_eq!(
            unsealer.open(&mut tls.server_writes()),
            Ok(Opened::CloseNotify)
        );
    }
}
