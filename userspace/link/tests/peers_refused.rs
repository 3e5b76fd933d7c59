//! Goal: whoever is not a node of our trust domain, in time, post-quantum and not us, gets no link,
//! and the error says whose fault it is and what to do.
//!
//! ```text
//!   Session ──── bytes in memory ──── a Session or a bare rustls connection that misbehaves
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "tests are where the time comes from"
)]

mod common;

use common::foreign::{node, refusal};
use common::{Authority, DAY, dial, refusals, sessions, start, today};
use kedge_identity::SvidError;
use kedge_link::testing::exchange;
use kedge_link::testing::foreign::{Foreign, hello};
use kedge_link::wire::{Frame, Hello};
use kedge_link::{
    Handle, LinkError, PeerIncompatible, PeerMisbehaved, PeerUnauthenticated, ProofKind, Session,
};
use kedge_model::{SpiffeId, Suite};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls_pki_types::UnixTime;
use std::time::Instant;

fn svid_error(error: &LinkError) -> &SvidError {
    match error {
        LinkError::PeerUnauthenticated(PeerUnauthenticated::Svid(error)) => error,
        other => panic!("not about the SVID: {other}"),
    }
}

#[test]
fn a_classical_only_peer_is_incompatible_and_told_why() {
    let authority = Authority::new("lab.kedge");
    let classical = Foreign {
        groups: vec![kx_group::X25519, kx_group::SECP256R1],
        ..node(&authority, &authority.node_id("a"))
    };
    let error = refusal(&classical, &authority.config("b"), b"");
    assert!(matches!(
        error,
        LinkError::PeerIncompatible(PeerIncompatible::NoPostQuantumGroup)
    ));
    assert!(error.to_string().contains("X25519MLKEM768"), "{error}");
}

#[test]
fn a_tls_1_2_hello_is_refused() {
    // ClientHello of TLS 1.2: no supported_versions extension, one ECDHE suite, X25519.
    let extensions = [
        &[0x00, 0x0a, 0x00, 0x04, 0x00, 0x02, 0x00, 0x1d][..],
        &[0x00, 0x0d, 0x00, 0x04, 0x00, 0x02, 0x04, 0x03],
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 16]);
    body.extend(extensions);
    let len = |n: usize| u8::try_from(n).expect("short");
    let mut hello = vec![22, 3, 1, 0, len(body.len() + 4), 1, 0, 0, len(body.len())];
    hello.extend(body);
    let authority = Authority::new("lab.kedge");
    let now = Instant::now();
    let mut server = Session::server(&authority.config("b"), start(now, 1)).expect("a session");
    let error = server.handle_input(now, &hello).expect_err("TLS 1.2");
    assert!(
        matches!(error, LinkError::PeerIncompatible(PeerIncompatible::Tls(_))),
        "{error}"
    );
}

#[test]
fn a_peer_of_another_trust_domain_is_refused_even_if_its_ca_is_trusted() {
    let (ours, theirs) = (Authority::new("lab.kedge"), Authority::new("other.kedge"));
    let both = [ours.ca.bundle_pem(), theirs.ca.bundle_pem()].concat();
    let a = theirs.config_with("a", &Suite::ALL, &both);
    let b = ours.config_with("b", &Suite::ALL, &both);
    let [at_a, _] = refusals(&a, &b);
    assert!(matches!(
        svid_error(&at_a.expect("refused")),
        SvidError::TrustDomain { .. }
    ));
    let error = refusal(&node(&theirs, &theirs.node_id("a")), &b, b"");
    assert!(matches!(svid_error(&error), SvidError::TrustDomain { .. }));
    assert!(error.to_string().contains("trust_domain"), "{error}");
}

#[test]
fn a_peer_of_an_unknown_ca_is_refused_at_both_ends() {
    // The two CAs have the same name, so it may be the signature that does not fit.
    let untrusted = |error: &LinkError| {
        matches!(
            svid_error(error),
            SvidError::Untrusted | SvidError::Chain(_)
        )
    };
    let (ours, theirs) = (Authority::new("lab.kedge"), Authority::new("lab.kedge"));
    let [at_a, at_b] = refusals(&theirs.config("a"), &ours.config("b"));
    assert!(untrusted(&at_a.expect("refused")));
    assert!(matches!(at_b, Some(LinkError::RefusedByPeer(_))));
    let error = refusal(&node(&theirs, &theirs.node_id("a")), &ours.config("b"), b"");
    assert!(untrusted(&error));
}

#[test]
fn a_workload_certificate_makes_no_link() {
    let authority = Authority::new("lab.kedge");
    let web = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/web").expect("literal");
    let error = refusal(&node(&authority, &web), &authority.config("b"), b"");
    assert!(matches!(svid_error(&error), SvidError::NotANode(_)));
}

#[test]
fn an_expired_certificate_is_refused_at_both_ends() {
    let authority = Authority::new("lab.kedge");
    let (a, b) = (authority.config("a"), authority.config("b"));
    let now = Instant::now();
    let tomorrow =
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(today().as_secs()) + 2 * DAY);
    for late_client in [true, false] {
        let (mut dialled, mut accepted) = (dial(now, b.id(), None), start(now, 2));
        if late_client {
            dialled.start.unix_time = tomorrow;
        } else {
            accepted.unix_time = tomorrow;
        }
        let mut client = Session::client(&a, dialled).expect("a session");
        let mut server = Session::server(&b, accepted).expect("a session");
        let [at_client, at_server] = exchange(&mut client, &mut server, now);
        let late = if late_client { at_client } else { at_server };
        let error = late.result.expect_err("expired");
        assert!(matches!(svid_error(&error), SvidError::Expired { .. }));
        assert!(error.to_string().contains("kedge ca issue"), "{error}");
    }
}

#[test]
fn our_own_identity_as_peer_is_refused() {
    let authority = Authority::new("lab.kedge");
    let b = authority.config("b");
    let now = Instant::now();
    assert!(matches!(
        Session::client(&b, dial(now, b.id(), None)),
        Err(LinkError::PeerUnauthenticated(
            PeerUnauthenticated::OurOwnId(_)
        ))
    ));
    let error = refusal(&node(&authority, &authority.node_id("b")), &b, b"");
    assert!(matches!(
        error,
        LinkError::PeerUnauthenticated(PeerUnauthenticated::OurOwnId(_))
    ));
}

#[test]
fn another_node_than_the_one_dialled_is_refused() {
    let authority = Authority::new("lab.kedge");
    let (a, b, c) = (
        authority.config("a"),
        authority.config("b"),
        authority.config("c"),
    );
    let now = Instant::now();
    let (mut client, _) = sessions(&a, &c, None, now);
    let mut server = Session::server(&b, start(now, 2)).expect("a session");
    let [at_client, _] = exchange(&mut client, &mut server, now);
    let error = at_client.result.expect_err("b answered for c");
    assert!(matches!(
        error,
        LinkError::PeerUnauthenticated(PeerUnauthenticated::OtherNode { .. })
    ));
}

#[test]
fn no_certificate_no_protocol_no_link() {
    let authority = Authority::new("lab.kedge");
    let b = authority.config("b");
    let a = || node(&authority, &authority.node_id("a"));
    let nameless = Foreign {
        identity: None,
        ..a()
    };
    let nameless = refusal(&nameless, &b, b"");
    assert!(matches!(
        nameless,
        LinkError::PeerUnauthenticated(PeerUnauthenticated::NoCertificate)
    ));
    for alpn in [None, Some(&b"h2"[..])] {
        let error = refusal(&Foreign { alpn, ..a() }, &b, b"");
        assert!(
            matches!(
                error,
                LinkError::PeerIncompatible(PeerIncompatible::NoProtocol)
            ),
            "{alpn:?}: {error}"
        );
    }
}

#[test]
fn frames_before_hello_and_unknown_critical_ones_end_the_link() {
    let authority = Authority::new("lab.kedge");
    let b = authority.config("b");
    let a = node(&authority, &authority.node_id("a"));
    let drain = [0x80, 7, 0, 0];
    assert!(matches!(
        refusal(&a, &b, &drain),
        LinkError::PeerMisbehaved(PeerMisbehaved::FrameBeforeHello)
    ));
    let unknown_critical = [0x80, 99, 0, 0];
    assert!(matches!(
        refusal(&a, &b, &unknown_critical),
        LinkError::PeerMisbehaved(PeerMisbehaved::Wire(_))
    ));
    let too_long = [0x00, 99, 0x40, 1];
    assert!(matches!(
        refusal(&a, &b, &too_long),
        LinkError::PeerMisbehaved(PeerMisbehaved::Wire(_))
    ));
}

#[test]
fn another_nodes_certificate_without_its_key_is_refused() {
    let authority = Authority::new("lab.kedge");
    let [a, c] = ["a", "c"].map(|name| node(&authority, &authority.node_id(name)));
    let (certificate, _) = a.identity.expect("one of a");
    let (_, key) = c.identity.expect("one of c");
    let thief = Foreign::with(certificate, key);
    let error = refusal(&thief, &authority.config("b"), b"");
    assert!(matches!(
        error,
        LinkError::PeerUnauthenticated(PeerUnauthenticated::Signature)
    ));
}

#[test]
fn a_list_without_what_was_negotiated_ends_the_link() {
    let authority = Authority::new("lab.kedge");
    let a = node(&authority, &authority.node_id("a"));
    let stripped = Hello {
        groups: vec![0x001d],
        ..hello()
    };
    let mut bytes = Vec::new();
    Frame::Hello(stripped).encode(&mut bytes);
    assert!(matches!(
        refusal(&a, &authority.config("b"), &bytes),
        LinkError::PeerMisbehaved(PeerMisbehaved::BelowCommonBest {
            got: 0x11ec,
            best: 0,
            ..
        })
    ));
}

#[test]
fn a_negotiated_suite_below_the_common_best_ends_the_link() {
    let authority = Authority::new("lab.kedge");
    let a = node(&authority, &authority.node_id("a"));
    // TLS took AES-256-GCM, but by these lists both prefer ChaCha20-Poly1305: somebody meddled.
    let tls_suites = vec![0x1303, 0x1302, 0x1301];
    let hello = Hello {
        tls_suites,
        ..hello()
    };
    let mut bytes = Vec::new();
    Frame::Hello(hello).encode(&mut bytes);
    assert!(matches!(
        refusal(&a, &authority.config("b"), &bytes),
        LinkError::PeerMisbehaved(PeerMisbehaved::BelowCommonBest {
            got: 0x1302,
            best: 0x1303,
            ..
        })
    ));
}

#[test]
fn an_authenticated_peer_that_breaks_the_rules_of_frames_ends_its_link() {
    let authority = Authority::new("lab.kedge");
    let b = authority.config("b");
    let a = node(&authority, &authority.node_id("a"));
    let id = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/web").expect("literal");
    let announce = |handle| Frame::Announce {
        handle: Handle(handle),
        proof: ProofKind::AssertedByNode,
        id: id.clone(),
    };
    let misbehaved = |frames: &[Frame]| {
        let mut bytes = Vec::new();
        Frame::Hello(hello()).encode(&mut bytes);
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        match refusal(&a, &b, &bytes) {
            LinkError::PeerMisbehaved(reason) => reason,
            other => panic!("whose fault is it? {other}"),
        }
    };
    use PeerMisbehaved::{HandleReused, SecondHello, UnknownHandle, WrongSide};
    assert!(matches!(misbehaved(&[Frame::Hello(hello())]), SecondHello));
    assert!(matches!(misbehaved(&[Frame::Renew]), WrongSide(_)));
    assert!(matches!(
        misbehaved(&[announce(2)]),
        HandleReused(Handle(2))
    ));
    assert!(matches!(
        misbehaved(&[announce(1), announce(1)]),
        HandleReused(Handle(1))
    ));
    let accept = Frame::Accept { handle: Handle(1) };
    assert!(matches!(misbehaved(&[accept]), UnknownHandle(Handle(1))));
}
