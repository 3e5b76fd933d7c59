//! Goal: what two honest nodes get out of one control connection.
//!
//! ```text
//!   node a (TLS client) ──── bytes in memory ──── node b (TLS server)
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "tests are where the time comes from"
)]

mod common;

use common::foreign::{converse, node};
use common::{Authority, Pair, sessions};
use kedge_link::testing::foreign::hello;
use kedge_link::wire::{Attesting, Frame, Header, Record0, RejectTarget, Shown};
use kedge_link::{
    Established, Flight, FlowKeys, Handle, LinkError, PeerMisbehaved, ProofKind, Role, Session,
    SessionEvent, limits::HANDSHAKE_TIMEOUT,
};
use kedge_model::{OriginalDst, Refusal, SourceAddr, SpiffeId, Suite};
use kedge_record::{ContentType, HEADER_LEN, OVERHEAD, Opened, Sealer, Unsealer};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn record0() -> Record0 {
    Record0 {
        source: Handle(1),
        source_proof: ProofKind::AssertedByNode,
        destination: Handle(2),
        source_address: SourceAddr::new("10.0.0.1:40000".parse().expect("literal")),
        destination_address: OriginalDst::new("[fd00::2]:80".parse().expect("literal")),
        destination_instance: b"pod-7".to_vec(),
    }
}

/// Opens a flow at `opener` and takes it at `acceptor`.
fn open(opener: &mut Established, acceptor: &mut Established, now: Instant) -> (FlowKeys, Flight) {
    let mut bytes = Vec::new();
    let keys = opener
        .outbound
        .open_flow(now)
        .expect("numbers")
        .seal_record0(&record0(), &mut bytes);
    let (header, record) = bytes
        .split_first_chunk_mut::<{ Header::LEN }>()
        .expect("a header");
    let header = Header::parse(header).expect("our own header");
    let pending = acceptor
        .inbound
        .flow_secret(now, &header)
        .expect("a fresh flow");
    let opened = pending.open_record0(record).expect("the same secret");
    (
        keys,
        acceptor
            .inbound
            .commit(now, opened)
            .expect("never seen before"),
    )
}

/// Whether a record sealed under `secret` opens under `other`.
fn carries(sealer: &mut Sealer, unsealer: &mut Unsealer) -> bool {
    let mut slot = [0x41; OVERHEAD + 4];
    sealer
        .seal(ContentType::ApplicationData, &mut slot, 4)
        .expect("a fresh key");
    assert_ne!(slot[HEADER_LEN..][..4], *b"AAAA", "sealed");
    unsealer.open(&mut slot) == Ok(Opened::Data(b"AAAA"))
}

#[test]
fn one_handshake_gives_the_same_keys_at_both_ends() {
    let Pair {
        now,
        mut at_client,
        mut at_server,
        ..
    } = Pair::new();
    assert_eq!(at_client.link_id, at_server.link_id);
    assert_eq!(
        (at_client.role, at_server.role),
        (Role::TlsClient, Role::TlsServer)
    );
    for client_opens in [true, false] {
        let (opener, acceptor) = if client_opens {
            (&mut at_client, &mut at_server)
        } else {
            (&mut at_server, &mut at_client)
        };
        let (ours, theirs) = open(opener, acceptor, now);
        assert_eq!(theirs.record0, record0());
        assert_eq!(theirs.header.number, 1);
        assert!(carries(
            &mut Sealer::new(ours.opener),
            &mut Unsealer::new(theirs.keys.opener)
        ));
        assert!(carries(
            &mut Sealer::new(theirs.keys.acceptor),
            &mut Unsealer::new(ours.acceptor)
        ));
    }
}

#[test]
fn flow_number_one_of_both_sides_has_four_keys_that_open_nothing_of_each_other() {
    let Pair {
        now,
        mut at_client,
        mut at_server,
        ..
    } = Pair::new();
    let (c, at_s) = open(&mut at_client, &mut at_server, now);
    let (s, at_c) = open(&mut at_server, &mut at_client, now);
    let mut sealers = [c.opener, at_s.keys.acceptor, s.opener, at_c.keys.acceptor].map(Sealer::new);
    let mut unsealers =
        [at_s.keys.opener, c.acceptor, at_c.keys.opener, s.acceptor].map(Unsealer::new);
    for (i, sealer) in sealers.iter_mut().enumerate() {
        for (j, unsealer) in unsealers.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            assert!(!carries(&mut *sealer, unsealer), "key {i} opened at {j}");
        }
    }
}

#[test]
fn the_link_says_who_how_and_with_what() {
    let pair = Pair::new();
    let (a, b) = (pair.at_client, pair.at_server);
    assert_eq!(a.peer.name().as_str(), "b");
    assert_eq!(b.peer.name().as_str(), "a");
    assert_eq!((&a.tls_client, &b.tls_client), (b.peer.id(), b.peer.id()));
    for side in [&a, &b] {
        assert_eq!(side.group, "X25519MLKEM768");
        assert_eq!(
            (side.tls_suite, side.flow_suite),
            (Suite::Aes256Gcm, Suite::Aes256Gcm)
        );
        assert!(side.bytes_sent > 1_000 && side.bytes_received > 1_000);
    }
    assert_eq!(
        (a.peer_instance.0, b.peer_instance.0),
        ([b'b'; 16], [b'a'; 16])
    );
    assert_eq!(a.bytes_sent, b.bytes_received);
}

#[test]
fn the_first_common_suite_of_the_dialling_node_seals_the_flows() {
    let authority = Authority::new("lab.kedge");
    let bundle = authority.ca.bundle_pem();
    let a = authority.config_with("a", &[Suite::ChaCha20Poly1305, Suite::Aes256Gcm], bundle);
    let pair = Pair::between(&a, &authority.config("b"), None);
    assert_eq!(pair.at_server.flow_suite, Suite::ChaCha20Poly1305);
    let pair = Pair::between(&authority.config("b"), &a, None);
    assert_eq!(pair.at_server.flow_suite, Suite::Aes256Gcm);
}

#[test]
fn after_both_hellos_the_keys_that_they_travelled_under_are_gone() {
    let authority = Authority::new("lab.kedge");
    let a = node(&authority, &authority.node_id("a"));
    let mut bytes = Vec::new();
    Frame::Hello(hello()).encode(&mut bytes);
    let config = authority.config("b");
    let sequence_numbers = |frames: &[u8]| {
        let client = converse(&a, &config, frames).expect("honest");
        let secrets = client.dangerous_extract_secrets().expect("enabled");
        (secrets.tx.0, secrets.rx.0)
    };
    assert_eq!(
        sequence_numbers(b""),
        (0, 1),
        "the server's hello was its record 0"
    );
    // The server asked for an update: both directions are at record 0 of their next keys.
    assert_eq!(sequence_numbers(&bytes), (0, 0));
}

#[test]
fn two_links_of_the_same_nodes_share_no_key() {
    let authority = Authority::new("lab.kedge");
    let (a, b) = (authority.config("a"), authority.config("b"));
    let (mut one, mut two) = (Pair::between(&a, &b, None), Pair::between(&a, &b, None));
    assert_ne!(one.at_client.link_id, two.at_client.link_id);
    let new = one.at_client.outbound.open_flow(one.now).expect("numbers");
    assert!(
        two.at_server
            .inbound
            .flow_secret(one.now, new.header())
            .is_err()
    );
}

#[test]
fn a_renewed_link_names_the_one_that_it_replaces_at_both_ends() {
    let authority = Authority::new("lab.kedge");
    let (a, b) = (authority.config("a"), authority.config("b"));
    let mut first = Pair::between(&a, &b, None);
    assert_eq!(first.at_server.renews, None);
    first.server.ask_renewal().expect("we are the TLS server");
    let [at_client, _] = first.exchange();
    assert!(matches!(at_client[..], [SessionEvent::RenewalAsked]));
    let second = Pair::between(&a, &b, Some(first.at_client.link_id));
    assert_eq!(second.at_server.renews, Some(first.at_server.link_id));
    assert_eq!(second.at_client.renews, Some(first.at_server.link_id));
    first.client.drain().expect("established");
    let [_, at_server] = first.exchange();
    assert!(matches!(at_server[..], [SessionEvent::Draining]));
}

#[test]
fn only_the_tls_server_asks_for_renewal() {
    assert!(matches!(
        Pair::new().client.ask_renewal(),
        Err(LinkError::ApiMisuse(_))
    ));
}

#[test]
fn an_identity_is_announced_once_and_accepted_by_handle() {
    let mut pair = Pair::new();
    let web = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/web").expect("literal");
    let handle = pair.client.announce(&web).expect("established");
    assert_eq!(pair.client.announce(&web).expect("established"), handle);
    let [_, at_server] = pair.exchange();
    let [
        SessionEvent::Announced {
            handle: seen,
            id,
            proof: ProofKind::AssertedByNode,
        },
    ] = &at_server[..]
    else {
        panic!("announced exactly once");
    };
    assert_eq!((*seen, id), (handle, &web));
    pair.server.accept(handle).expect("announced");
    let [at_client, _] = pair.exchange();
    assert!(matches!(at_client[..], [SessionEvent::Accepted { handle: h }] if h == handle));
}

#[test]
fn a_rejected_identity_gets_a_new_handle_never_the_old_one() {
    let mut pair = Pair::new();
    let web = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/web").expect("literal");
    let first = pair.client.announce(&web).expect("established");
    pair.exchange();
    pair.server
        .reject(first, Refusal::SourceMismatch)
        .expect("announced");
    let [at_client, _] = pair.exchange();
    assert!(matches!(
        &at_client[..],
        [SessionEvent::Rejected { target: RejectTarget::Handle(h), refusal: Refusal::SourceMismatch }]
            if *h == first
    ));
    assert_ne!(pair.client.announce(&web).expect("established"), first);
}

#[test]
fn a_requested_identity_is_announced_or_rejected_by_name() {
    let mut pair = Pair::new();
    let db = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/db").expect("literal");
    pair.client.request(&db).expect("established");
    let [_, at_server] = pair.exchange();
    assert!(matches!(&at_server[..], [SessionEvent::Requested { id }] if *id == db));
    pair.server
        .reject_request(&db, Refusal::DestinationUnknown)
        .expect("established");
    let [at_client, _] = pair.exchange();
    assert!(matches!(
        &at_client[..],
        [SessionEvent::Rejected { target: RejectTarget::Id(id), .. }] if *id == db
    ));
}

#[test]
fn a_clean_close_is_told_from_a_cut() {
    let mut pair = Pair::new();
    pair.client.close();
    let [_, at_server] = pair.exchange();
    assert!(matches!(at_server[..], [SessionEvent::Closed]));
    assert!(pair.server.handle_end().is_ok());
    let mut cut = Pair::new();
    assert!(matches!(
        cut.server.handle_end(),
        Err(LinkError::ConnectionLost)
    ));
    assert!(matches!(
        cut.server.handle_input(cut.now, b"x"),
        Err(LinkError::ConnectionLost)
    ));
}

#[test]
fn a_handshake_that_takes_five_seconds_is_over() {
    let authority = Authority::new("lab.kedge");
    let now = Instant::now();
    let (mut client, _) = sessions(&authority.config("a"), &authority.config("b"), None, now);
    let deadline = client.poll_timeout().expect("it is establishing");
    assert_eq!(deadline, now + HANDSHAKE_TIMEOUT);
    assert!(
        client
            .handle_timeout(deadline - Duration::from_millis(1))
            .is_ok()
    );
    assert!(matches!(
        client.handle_timeout(deadline),
        Err(LinkError::TimedOut)
    ));
    let pair = Pair::new();
    assert_eq!(
        (pair.client.poll_timeout(), pair.server.poll_timeout()),
        (None, None)
    );
}

#[test]
fn bytes_may_arrive_one_at_a_time() {
    let authority = Authority::new("lab.kedge");
    let now = Instant::now();
    let (mut a, mut b) = sessions(&authority.config("a"), &authority.config("b"), None, now);
    let mut events = 0;
    for _ in 0..8 {
        events += trickle(&mut a, &mut b, now) + trickle(&mut b, &mut a, now);
    }
    assert_eq!(events, 2, "one Established each");
}

/// Carries what `from` has to say byte by byte; how many events that made at `to`.
fn trickle(from: &mut Session, to: &mut Session, now: Instant) -> usize {
    let mut bytes = Vec::new();
    from.poll_transmit(&mut bytes);
    for byte in &bytes {
        to.handle_input(now, std::slice::from_ref(byte))
            .expect("honest");
    }
    std::iter::from_fn(|| to.poll_event()).count()
}

#[test]
fn what_a_side_shows_reaches_the_other_where_both_hellos_say_so_and_nowhere_else() {
    let authority = Authority::new("lab.kedge");
    let config = |name: &str, attesting| {
        let config = Arc::into_inner(authority.config(name)).expect("nobody else has it");
        Arc::new(config.attesting(attesting))
    };
    let a = config("a", Some(Attesting::Required));
    let mut pair = Pair::between(&a, &config("b", Some(Attesting::Optional)), None);
    let said = [Some(Attesting::Required), Some(Attesting::Optional)];
    assert_eq!(pair.at_client.attesting, said);
    let shown = Shown::Result("a.b.c".into());
    pair.client.show(shown.clone()).expect("agreed");
    let refused = Err((Refusal::PeerUnattested, "none".to_owned()));
    pair.client.tell_verdict(refused.clone()).expect("agreed");
    let [_, at_server] = pair.exchange();
    assert!(matches!(
        &at_server[..],
        [SessionEvent::Shown(got), SessionEvent::Verdict(verdict)] if *got == shown && *verdict == refused
    ));

    // One that has closed meanwhile is told nothing, and that is no fault of ours.
    pair.client.close();
    pair.exchange();
    assert!(pair.server.tell_verdict(Ok(())).is_ok());

    let mut pair = Pair::between(&a, &config("b", None), None);
    assert!(
        pair.client.show(shown).is_err(),
        "the other side knows none"
    );
}

#[test]
fn a_result_that_was_not_agreed_on_ends_the_link() {
    let authority = Authority::new("lab.kedge");
    let a = node(&authority, &authority.node_id("a"));
    let mut bytes = Vec::new();
    Frame::Hello(hello()).encode(&mut bytes);
    Frame::Result(Shown::Nothing("none".into())).encode(&mut bytes);
    let refused = converse(&a, &authority.config("b"), &bytes).err();
    assert!(matches!(
        refused,
        Some(LinkError::PeerMisbehaved(PeerMisbehaved::NotAgreed(
            "result"
        )))
    ));
}
