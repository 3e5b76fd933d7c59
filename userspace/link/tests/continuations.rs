//! Goal: a direction that goes on on another connection is the same direction to whoever has only
//! docs/protocol.md and the link's secret; and nobody else's continuation is taken for a flow's own.
//!
//! ```text
//!   opener ── … │ data │ Continue ──┤           the flow's first carrier
//!          ── continuation │ data │ close_notify ──┤ cut at every byte
//!   acceptor ── confirmation
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "tests are where the time comes from"
)]

mod common;

use aws_lc_rs::hmac;
use common::formulas::{
    ALERT, APPLICATION_DATA, CONTINUE, HANDSHAKE, Sealed, expand_384, hmac_of, next_secret, parts,
    read_records,
};
use kedge_link::testing::LinkInputs;
use kedge_link::wire::{Continuation, Direction, Point, Record0};
use kedge_link::{ContinuationError, FlowKeys, Handle, ProofKind, Role, Turns};
use kedge_model::{OriginalDst, SourceAddr, Suite};
use kedge_record::{ContentType, HEADER_LEN, Limits, OVERHEAD, Rekey, Sealer};
use std::time::Instant;

const FIRST: Point = Point {
    direction: Direction::FromOpener,
    generation: 1,
    last_record: 2,
};

fn record0(source: u64) -> Record0 {
    Record0 {
        source: Handle(source),
        source_proof: ProofKind::AssertedByNode,
        destination: Handle(2),
        source_address: SourceAddr::new("10.1.0.2:40000".parse().expect("literal")),
        destination_address: OriginalDst::new("[fd00:2::3]:80".parse().expect("literal")),
        destination_instance: b"pod-7".to_vec(),
    }
}

/// The keys of flow number `number` of an opener, between identities of ours.
fn keys(suite: Suite, role: Role, number: u64, source: u64) -> FlowKeys {
    let now = Instant::now();
    let mut outbound = LinkInputs::fixed(suite).half(role, now).outbound;
    for _ in 1..number {
        outbound.open_flow(now).expect("numbers");
    }
    let flow = outbound.open_flow(now).expect("numbers");
    flow.seal_record0(&record0(source), &mut Vec::new())
}

/// Of two workloads that are always the same.
fn first_flow() -> FlowKeys {
    keys(Suite::Aes256Gcm, Role::TlsClient, 1, 1)
}

fn turns() -> Turns {
    Turns::new(first_flow().continuation)
}

fn data(sealer: &mut Sealer, content: &[u8]) -> Vec<u8> {
    let mut slot = vec![0; content.len() + OVERHEAD];
    slot[HEADER_LEN..][..content.len()].copy_from_slice(content);
    sealer
        .seal(ContentType::ApplicationData, &mut slot, content.len())
        .expect("room");
    slot
}

/// The two connections of a direction, as this crate writes them.
fn continued(keys: FlowKeys) -> [Vec<u8>; 2] {
    let limits = Limits {
        rekey: Rekey::Continue,
        ..Limits::PROTOCOL
    };
    let mut sealer = Sealer::with_limits(keys.opener, limits);
    let mut first = [data(&mut sealer, b"one"), data(&mut sealer, b"two")].concat();
    let mut message = [0; OVERHEAD + 4];
    sealer.seal_continue(&mut message).expect("room");
    first.extend_from_slice(&message);
    let mut sealer = sealer.into_next();
    let mut second = keys.continuation.continuation(FIRST).encode().to_vec();
    second.extend(data(&mut sealer, b"three"));
    let mut message = [0; OVERHEAD + 2];
    sealer.seal_close_notify(&mut message).expect("room");
    second.extend_from_slice(&message);
    [first, second]
}

fn sealed(content: &[u8], inner: u8) -> Sealed {
    (content.to_vec(), inner)
}

#[test]
fn at_every_cut_of_the_next_carrier_an_independent_reader_goes_on_where_the_first_one_ended() {
    for suite in Suite::ALL {
        let inputs = LinkInputs::fixed(suite);
        let salt = [inputs.client_random, inputs.server_random].concat();
        let master = hmac_of(hmac::HMAC_SHA384, &salt, &inputs.exporter);
        let (opener, link_id) = common::formulas::opener_secret(&master, 0);
        let code_point = suite.code_point().to_be_bytes();
        let number = 1u64.to_be_bytes();
        let header = [b"H\x01", &code_point[..], &[0], &link_id, &[0; 4], &number].concat();
        let mut plaintext = Vec::new();
        record0(1).encode(&mut plaintext);
        let context = common::formulas::context(&header, &plaintext);
        let flow = expand_384(&opener, "kedge flow", &header, 48);
        let secret = expand_384(&flow, "kedge o ap", &context, parts(suite).secret_len);
        let [first, second] = continued(keys(suite, Role::TlsClient, 1, 1));
        let before = [
            sealed(b"one", APPLICATION_DATA),
            sealed(b"two", APPLICATION_DATA),
            sealed(&CONTINUE, HANDSHAKE),
        ];
        assert_eq!(read_records(suite, &secret, &first), before);

        let (continuation, records) = second.split_at(Continuation::LEN);
        let (named, tag) = continuation.split_at(40);
        let last_record = u64::try_from(before.len() - 1).expect("few").to_be_bytes();
        let expected = [
            b"C\x01\0",
            &link_id[..],
            &number,
            b"\0\0\0\0\x01",
            &last_record,
        ]
        .concat();
        assert_eq!(named, expected);
        let key = expand_384(&flow, "kedge continue", &context, 48);
        assert_eq!(tag, &hmac_of(hmac::HMAC_SHA384, &key, named)[..16]);

        let after = [sealed(b"three", APPLICATION_DATA), sealed(&[1, 0], ALERT)];
        let secret = next_secret(suite, &secret);
        for cut in 0..=records.len() {
            let found = read_records(suite, &secret, &records[..cut]);
            let whole = [5 + OVERHEAD, 5 + OVERHEAD + 2 + OVERHEAD];
            let whole = whole.into_iter().filter(|end| *end <= cut).count();
            assert_eq!(found, after[..whole], "{suite}, cut at {cut}");
        }
    }
}

#[test]
fn each_direction_takes_its_turns_once_and_in_order() {
    let (key, mut turns) = (first_flow().continuation, turns());
    for direction in [Direction::FromOpener, Direction::FromAcceptor] {
        for generation in 1..=300 {
            let point = |generation| Point {
                direction,
                generation,
                last_record: 7,
            };
            let too_far = key.continuation(point(generation + 1));
            let refused = ContinuationError::TooFar(generation + 1);
            assert_eq!(turns.take(&too_far), Err(refused));
            let due = key.continuation(point(generation));
            let confirmation = turns.take(&due).expect("its turn");
            assert!(key.confirms(&due, &confirmation));
            assert!(!key.confirms(&too_far, &confirmation));
            assert!(!key.confirms(&due, &due.tag), "it confirms itself");
            for replayed in [generation, 1, 0] {
                let replay = key.continuation(point(replayed));
                let refused = ContinuationError::Replayed(replayed);
                assert_eq!(turns.take(&replay), Err(refused));
            }
        }
    }
}

#[test]
fn a_continuation_of_anything_else_is_forged() {
    let others = [
        (
            "another flow",
            keys(Suite::Aes256Gcm, Role::TlsClient, 2, 1),
        ),
        (
            "the peer's flow",
            keys(Suite::Aes256Gcm, Role::TlsServer, 1, 1),
        ),
        (
            "another suite",
            keys(Suite::Aes128Gcm, Role::TlsClient, 1, 1),
        ),
        (
            "another identity",
            keys(Suite::Aes256Gcm, Role::TlsClient, 1, 9),
        ),
    ];
    let due = first_flow().continuation.continuation(FIRST);
    let mut turns = turns();
    for (whose, keys) in others {
        let other = keys.continuation.continuation(FIRST);
        assert_eq!(
            turns.take(&other),
            Err(ContinuationError::Forged),
            "{whose}"
        );
        let renamed = Continuation {
            flow: due.flow,
            ..other
        };
        let taken = turns.take(&renamed);
        assert_eq!(taken, Err(ContinuationError::Forged), "{whose}, renamed");
    }
    assert!(turns.take(&due).is_ok(), "nothing has changed");
}

#[test]
fn every_changed_byte_of_a_continuation_is_refused_and_leaves_its_turn() {
    let mut turns = turns();
    let bytes = first_flow().continuation.continuation(FIRST).encode();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes;
            changed[at] ^= 1 << bit;
            let Ok(continuation) = Continuation::parse(&changed) else {
                assert!(at < 28, "byte {at} has no form");
                continue;
            };
            let taken = turns.take(&continuation);
            assert_eq!(taken, Err(ContinuationError::Forged), "byte {at}");
        }
    }
    let due = Continuation::parse(&bytes).expect("our own");
    assert!(turns.take(&due).is_ok());
}
