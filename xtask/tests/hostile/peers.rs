//! Whoever dials a kedged and is not an honest node of the trust domain gets no link.

use crate::counted::refused_as;
use anyhow::{Context, Result, ensure};
use kedge_identity::Ca;
use kedge_link::testing::foreign::{Foreign, hello};
use kedge_link::wire::{Frame, Hello};
use kedge_link::{Handle, ProofKind};
use kedge_model::{SpiffeId, TrustDomain};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{Node, PEER_PORT};
use xtask::stage::play;
use xtask::steady::Steady;

const HOUR: Duration = Duration::from_secs(3_600);
/// Longer than kedged gives a handshake.
const PATIENCE: Duration = Duration::from_secs(10);

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A CA in a folder of its own.
struct Authority {
    ca: Ca,
    _folder: tempfile::TempDir,
}

impl Authority {
    fn new(trust_domain: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let domain = TrustDomain::parse(trust_domain)?;
        let ca = Ca::init(&folder.path().join("ca"), &domain, UnixTime::now())?;
        Ok(Self {
            ca,
            _folder: folder,
        })
    }
}

fn identity(ca: &Ca, path: &str) -> Result<Identity> {
    identity_from(ca, path, UnixTime::now())
}

/// For an hour from `now`.
fn identity_from(ca: &Ca, path: &str, now: UnixTime) -> Result<Identity> {
    let id = SpiffeId::parse(&format!("spiffe://{}/{path}", ca.trust_domain()))?;
    let issued = ca.issue(&id, HOUR, now)?;
    let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
    Ok((certificate, key))
}

fn foreign((certificate, key): Identity) -> Foreign {
    Foreign::with(certificate, key)
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut bytes));
    bytes
}

/// What is wrong with a peer: how it is counted, what is told, and who it is.
type Row = ((&'static str, &'static str), Foreign);
/// The same of one whose TLS is honest, with what it says as soon as it may.
type SayingRow = ((&'static str, &'static str), Vec<u8>);

fn unauthenticated(lab_ca: &Ca, trusted_other: &Ca) -> Result<Vec<Row>> {
    let now = UnixTime::now().as_secs();
    let yesterday = UnixTime::since_unix_epoch(Duration::from_secs(now - 24 * 3_600));
    let a = || identity(lab_ca, "kedge/node/a");
    let stolen = (a()?.0, identity(lab_ca, "kedge/node/c")?.1);
    let stranger = Authority::new("lab.kedge")?;
    Ok(vec![
        (
            (
                "links.failed.other-trust-domain",
                "is not of trust domain lab.kedge",
            ),
            foreign(identity(trusted_other, "kedge/node/a")?),
        ),
        (
            ("links.failed.certificate-untrusted", "certificate"),
            foreign(identity(&stranger.ca, "kedge/node/a")?),
        ),
        (
            ("links.failed.certificate-expired", "certificate expired at"),
            foreign(identity_from(lab_ca, "kedge/node/a", yesterday)?),
        ),
        (
            ("links.failed.not-a-node", "is not a node's identity"),
            foreign(identity(lab_ca, "ns/default/sa/client")?),
        ),
        (
            (
                "links.failed.our-own-identity",
                "it presents our own identity",
            ),
            foreign(identity(lab_ca, "kedge/node/b")?),
        ),
        (
            (
                "links.failed.bad-signature",
                "does not verify under its certificate",
            ),
            foreign(stolen),
        ),
        (
            ("links.failed.no-certificate", "it presents no certificate"),
            Foreign {
                identity: None,
                ..foreign(a()?)
            },
        ),
        (
            (
                "links.failed.no-post-quantum-group",
                "kedge requires X25519MLKEM768",
            ),
            Foreign {
                groups: vec![kx_group::X25519, kx_group::SECP256R1],
                ..foreign(a()?)
            },
        ),
        (
            (
                "links.failed.no-protocol-in-common",
                "no application protocol",
            ),
            Foreign {
                alpn: Some(b"h2"),
                ..foreign(a()?)
            },
        ),
    ])
}

/// Hellos of a node with a certificate of its own that nobody can agree with.
fn hellos() -> Vec<SayingRow> {
    let says = |change: fn(&mut Hello)| {
        let mut hello = hello();
        change(&mut hello);
        frames(&[Frame::Hello(hello)])
    };
    vec![
        (
            (
                "links.failed.below-common-best",
                "0x1303 is the best that both offer",
            ),
            says(|hello| hello.tls_suites = vec![0x1303, 0x1302]),
        ),
        (
            (
                "links.failed.below-common-best",
                "group 0x11ec was negotiated",
            ),
            says(|hello| hello.groups = vec![0x001d]),
        ),
        (
            (
                "links.failed.no-version-in-common",
                "no link version in common",
            ),
            says(|hello| hello.versions = vec![9]),
        ),
        (
            (
                "links.failed.no-suite-in-common",
                "no record suite in common",
            ),
            says(|hello| hello.record_suites = vec![0x1309]),
        ),
    ]
}

/// Frames that such a node may not send, and bytes that are none.
fn misplaced_frames() -> Result<Vec<SayingRow>> {
    let after_hello = |frame: Frame| frames(&[Frame::Hello(hello()), frame]);
    let raw = |frame: &[u8]| [frames(&[Frame::Hello(hello())]), frame.to_vec()].concat();
    let announce = Frame::Announce {
        handle: Handle(7),
        proof: ProofKind::AssertedByNode,
        id: SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/client")?,
    };
    Ok(vec![
        (
            (
                "links.failed.unexpected-frame",
                "renew sent by the wrong side",
            ),
            after_hello(Frame::Renew),
        ),
        (
            (
                "links.failed.unknown-handle",
                "handle 7 was announced before, or out of order",
            ),
            after_hello(announce),
        ),
        (
            (
                "links.failed.unknown-handle",
                "handle 7 was never announced to it",
            ),
            after_hello(Frame::Accept { handle: Handle(7) }),
        ),
        (
            (
                "links.failed.malformed-frame",
                "unknown critical field 0x0063",
            ),
            raw(&[0x80, 99, 0, 0]),
        ),
        (
            ("links.failed.malformed-frame", "longer than allowed"),
            raw(&[0x00, 99, 0x40, 1]),
        ),
    ])
}

#[test]
fn whoever_is_no_honest_node_gets_no_link_and_harms_none() {
    play(|lab| {
        let other = Authority::new("other.kedge")?;
        trusting_also(lab, &other, |lab| {
            let steady = Steady::start(lab)?;
            all_are_refused(lab, &other.ca)?;
            let outcome = steady.finish()?;
            ensure!(outcome["errors"] == 0, "the flow that was there: {outcome}");
            Ok(())
        })
    });
}

fn all_are_refused(lab: &Lab, trusted_other: &Ca) -> Result<()> {
    let lab_ca = Ca::open(&lab.ca())?;
    for (refusal, peer) in unauthenticated(&lab_ca, trusted_other)? {
        refused_as(lab, Node::B, refusal, || speak(lab, &peer, b""))?;
    }
    for (refusal, words) in hellos().into_iter().chain(misplaced_frames()?) {
        let peer = foreign(identity(&lab_ca, "kedge/node/a")?);
        refused_as(lab, Node::B, refusal, || speak(lab, &peer, &words))?;
    }
    let unknown = foreign(identity(&lab_ca, "kedge/node/c")?);
    let refusal = (
        "links.failed.unknown-node",
        "node c is not in our directory",
    );
    let hello = frames(&[Frame::Hello(hello())]);
    refused_as(lab, Node::B, refusal, || speak(lab, &unknown, &hello))?;
    for (refusal, bytes) in no_tls_of_ours() {
        refused_as(lab, Node::B, refusal, || say(lab, &bytes))?;
    }
    Ok(())
}

/// Bytes that begin like a link.
fn no_tls_of_ours() -> [((&'static str, &'static str), Vec<u8>); 3] {
    let record = |body: &[u8]| {
        let len = u8::try_from(body.len()).expect("short");
        [&[22, 3, 1, 0, len], body].concat()
    };
    // ClientHello of TLS 1.2: no supported_versions, one ECDHE suite, X25519.
    let mut old = vec![1, 0, 0, 61, 3, 3];
    old.extend([7; 32]);
    old.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 16]);
    old.extend([0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 4, 0, 2, 4, 3]);
    old[3] = u8::try_from(old.len() - 4).expect("short");
    [
        (
            ("links.failed.no-tls-1.3", "TLS 1.3 is not possible"),
            record(&old),
        ),
        (("links.failed.malformed-tls", "TLS: "), record(&[0xff; 64])),
        // The beginning of a record, and nothing more.
        (
            ("links.failed.timed-out", "not finished within 5 s"),
            vec![22, 3, 1, 2, 0],
        ),
    ]
}

/// Plays with a node b that trusts another CA as well.
fn trusting_also(
    lab: &mut Lab,
    other: &Authority,
    act: impl FnOnce(&Lab) -> Result<()>,
) -> Result<()> {
    let path = lab.run.node_folder(Node::B).join("bundle.pem");
    let before = fs::read_to_string(&path)?;
    lab.stop_daemons()?;
    fs::write(&path, before.clone() + other.ca.bundle_pem())?;
    lab.start_daemons()?;
    let acted = act(lab);
    lab.stop_daemons()?;
    fs::write(&path, before)?;
    acted
}

/// Speaks TLS to node b from node a, then `words`, until node b has enough of it.
fn speak(lab: &Lab, peer: &Foreign, words: &[u8]) -> Result<()> {
    let mut tls = peer.connect().context("begin TLS")?;
    tls.writer().write_all(words)?;
    lab.within(Node::A, || {
        let mut socket = dial()?;
        loop {
            while tls.wants_write() {
                // Node b may have closed by now; why, it will say.
                if tls.write_tls(&mut socket).is_err() {
                    break;
                }
            }
            match tls.read_tls(&mut socket) {
                Ok(1..) if tls.process_new_packets().is_ok() => {}
                Ok(_) => return Ok(()),
                Err(error) if is_patience(&error) => return Err(error.into()),
                Err(_) => return Ok(()),
            }
        }
    })?
}

/// Says `bytes` to node b's peer port from node a, and waits for the end.
pub fn say(lab: &Lab, bytes: &[u8]) -> Result<()> {
    lab.within(Node::A, || {
        let mut socket = dial()?;
        socket.write_all(bytes)?;
        loop {
            match socket.read(&mut [0; 512]) {
                Ok(1..) => {}
                Ok(0) => return Ok(()),
                Err(error) if is_patience(&error) => return Err(error.into()),
                Err(_) => return Ok(()),
            }
        }
    })?
}

fn dial() -> Result<TcpStream> {
    let socket = TcpStream::connect(SocketAddr::from((Node::B.v4(), PEER_PORT)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Node b did not end it.
fn is_patience(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
}
