//! Goal: docs/vectors is what docs/protocol.md says and what this crate does.
//!
//! Everything is computed twice: by the formulas of docs/protocol.md, written down again here with
//! nothing but HMAC, SHA-384 and the AEADs, and by this crate. Both must equal the files. After a
//! change of the protocol, `KEDGE_WRITE_VECTORS=1 cargo test -p kedge-link --test vectors` writes
//! them anew.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are where the time comes from"
)]

mod common;

use aws_lc_rs::{digest, hmac};
use common::formulas::{SuiteParts, expand, expand_384, hmac_of, parts, seal};
use kedge_link::testing::{Half, LinkInputs};
use kedge_link::wire::{
    Answer, Attesting, Direction, Frame, Header, Hello, InstanceId, LinkId, Point, Record0,
    RejectTarget, Shown,
};
use kedge_link::{Handle, ProofKind, Role};
use kedge_model::{OriginalDst, Refusal, SourceAddr, SpiffeId, Suite};
use kedge_record::{ContentType, HEADER_LEN, OVERHEAD, Opened, Rekey, Sealer, Unsealer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::path::Path;
use std::time::Instant;

/// docs/vectors/flows.json. Every value is hexadecimal.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flows {
    exporter: String,
    client_random: String,
    server_random: String,
    master: String,
    link_id: String,
    openers: [OpenerVector; 2],
    /// Flow number 1 of both openers, for each suite.
    flows: Vec<FlowVector>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OpenerVector {
    role: u8,
    opener_secret_epoch_0: String,
    opener_secret_epoch_1: String,
    carrier_key: String,
    carrier_1_opening: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FlowVector {
    suite: String,
    opener_role: u8,
    header: String,
    flow_secret: String,
    record_0_secret: String,
    record_0_key: String,
    record_0_iv: String,
    record_0_plaintext: String,
    record_0: String,
    context: String,
    opener_traffic_secret: String,
    acceptor_traffic_secret: String,
    opener_data: String,
    opener_data_record: String,
    acceptor_answer: String,
    acceptor_answer_record: String,
    continuation_key: String,
    /// From the opener, then from the acceptor.
    continuations: [ContinuationVector; 2],
}

/// The first of a direction.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ContinuationVector {
    continuation: String,
    confirmation: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn by_the_formulas() -> Flows {
    let inputs = LinkInputs::fixed(Suite::Aes256Gcm);
    let salt = [inputs.client_random, inputs.server_random].concat();
    let master = hmac_of(hmac::HMAC_SHA384, &salt, &inputs.exporter);
    let link_id = expand_384(&master, "kedge link id", b"", 16);
    Flows {
        exporter: hex(&inputs.exporter),
        client_random: hex(&inputs.client_random),
        server_random: hex(&inputs.server_random),
        openers: [0, 1].map(|role| opener_by_the_formulas(&master, &link_id, role)),
        flows: Suite::ALL
            .into_iter()
            .flat_map(|suite| [0, 1].map(|role| flow_by_the_formulas(&master, suite, role)))
            .collect(),
        master: hex(&master),
        link_id: hex(&link_id),
    }
}

fn opener_by_the_formulas(master: &[u8], link_id: &[u8], role: u8) -> OpenerVector {
    let epoch_0 = expand_384(master, "kedge opener", &[role], 48);
    let carrier_key = expand_384(master, "kedge carrier", &[role], 48);
    let covered = [b"O\x01", &[role][..], link_id, &1u64.to_be_bytes()].concat();
    let tag = &hmac_of(hmac::HMAC_SHA384, &carrier_key, &covered)[..16];
    OpenerVector {
        role,
        opener_secret_epoch_1: hex(&expand_384(&epoch_0, "kedge ratchet", b"", 48)),
        opener_secret_epoch_0: hex(&epoch_0),
        carrier_key: hex(&carrier_key),
        carrier_1_opening: hex(&[&covered, tag].concat()),
    }
}

fn flow_by_the_formulas(master: &[u8], suite: Suite, role: u8) -> FlowVector {
    let SuiteParts {
        hash,
        secret_len,
        key_len,
        ..
    } = parts(suite);
    let link_id = expand_384(master, "kedge link id", b"", 16);
    let opener = expand_384(master, "kedge opener", &[role], 48);
    let code_point = suite.code_point().to_be_bytes();
    let (epoch, number) = (0u32.to_be_bytes(), 1u64.to_be_bytes());
    let header = [
        b"H\x01",
        &code_point[..],
        &[role],
        &link_id,
        &epoch,
        &number,
    ]
    .concat();
    let flow = expand_384(&opener, "kedge flow", &header, 48);
    let record_0_secret = expand_384(&flow, "kedge record 0", b"", secret_len);
    let mut record_0 = Vec::new();
    record0().encode(&mut record_0);
    let context = digest::digest(&digest::SHA384, &[&header[..], &record_0].concat());
    let to_acceptor = expand_384(&flow, "kedge o ap", context.as_ref(), secret_len);
    let to_opener = expand_384(&flow, "kedge a ap", context.as_ref(), secret_len);
    let continuation_key = expand_384(&flow, "kedge continue", context.as_ref(), 48);
    FlowVector {
        suite: suite.to_string(),
        opener_role: role,
        header: hex(&header),
        flow_secret: hex(&flow),
        record_0_key: hex(&expand(hash, &record_0_secret, "key", b"", key_len)),
        record_0_iv: hex(&expand(hash, &record_0_secret, "iv", b"", 12)),
        record_0: hex(&seal(suite, &record_0_secret, &record_0)),
        record_0_secret: hex(&record_0_secret),
        record_0_plaintext: hex(&record_0),
        context: hex(context.as_ref()),
        opener_data: hex(DATA),
        opener_data_record: hex(&seal(suite, &to_acceptor, DATA)),
        acceptor_answer: hex(&answer()),
        acceptor_answer_record: hex(&seal(suite, &to_opener, &answer())),
        opener_traffic_secret: hex(&to_acceptor),
        acceptor_traffic_secret: hex(&to_opener),
        continuations: [0, 1].map(|direction| {
            let flow = [&[role][..], &link_id, &number].concat();
            continuation_by_the_formulas(&continuation_key, &flow, direction)
        }),
        continuation_key: hex(&continuation_key),
    }
}

fn continuation_by_the_formulas(key: &[u8], flow: &[u8], direction: u8) -> ContinuationVector {
    let (generation, last) = (1u32.to_be_bytes(), LAST_RECORD.to_be_bytes());
    let named = [b"\x01", flow, &[direction], &generation, &last].concat();
    let tag = |kind: &[u8]| {
        let covered = [kind, &named].concat();
        hmac_of(hmac::HMAC_SHA384, key, &covered)[..16].to_vec()
    };
    ContinuationVector {
        continuation: hex(&[b"C", &named[..], &tag(b"C")].concat()),
        confirmation: hex(&tag(b"c")),
    }
}

// What is carried.

const DATA: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// Of a sender that continues as soon as it may.
const LAST_RECORD: u64 = (1 << 24) - 1024 - 1;

fn record0() -> Record0 {
    Record0 {
        source: Handle(1),
        source_proof: ProofKind::AssertedByNode,
        destination: Handle(2),
        source_address: SourceAddr::new("10.1.0.2:40000".parse().expect("literal")),
        destination_address: OriginalDst::new("[fd00:2::3]:80".parse().expect("literal")),
        destination_instance: b"pod-7".to_vec(),
    }
}

fn answer() -> Vec<u8> {
    let mut bytes = Vec::new();
    Answer::Accepted.encode(&mut bytes);
    bytes
}

/// A plain one, one with all that is optional, and one of a node whose flows continue; then one that
/// asks for attestation.
fn hellos() -> [Hello; 4] {
    let hello = Hello {
        versions: vec![1],
        groups: vec![0x11ec],
        tls_suites: vec![0x1302, 0x1303, 0x1301],
        record_suites: Suite::ALL.map(Suite::code_point).to_vec(),
        instance: InstanceId([0xaa; 16]),
        random: [0x22; 32],
        renews: None,
        successor_of: None,
        rekey: Some(Rekey::InPlace),
        attesting: None,
    };
    let continuing = Hello {
        rekey: Some(Rekey::Continue),
        ..hello.clone()
    };
    let renewing = Hello {
        renews: Some(LinkId([0xbb; 16])),
        successor_of: Some(InstanceId([0xcc; 16])),
        ..hello.clone()
    };
    let attested = Hello {
        attesting: Some(Attesting::Required),
        ..hello.clone()
    };
    [hello, renewing, continuing, attested]
}

fn messages() -> BTreeMap<String, String> {
    let id = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/web").expect("literal");
    let [hello, renewing, continuing, attested] = hellos();
    let proof = ProofKind::AssertedByNode;
    let by_handle = RejectTarget::Handle(Handle(1));
    let frames = [
        ("hello", Frame::Hello(hello)),
        ("hello, renewing, successor", Frame::Hello(renewing)),
        ("hello, continuing", Frame::Hello(continuing)),
        ("hello, attested", Frame::Hello(attested)),
        (
            "announce",
            Frame::Announce {
                handle: Handle(1),
                proof,
                id: id.clone(),
            },
        ),
        ("request", Frame::Request { id: id.clone() }),
        ("accept", Frame::Accept { handle: Handle(1) }),
        (
            "reject handle",
            Frame::Reject {
                target: by_handle,
                refusal: Refusal::Misplaced,
            },
        ),
        (
            "reject identity",
            Frame::Reject {
                target: RejectTarget::Id(id),
                refusal: Refusal::DestinationUnknown,
            },
        ),
        ("renew", Frame::Renew),
        ("drain", Frame::Drain),
        ("result", Frame::Result(Shown::Result("a.b.c".into()))),
        (
            "result, none",
            Frame::Result(Shown::Nothing("no TPM".into())),
        ),
        ("verdict", Frame::Verdict(Ok(()))),
        (
            "verdict, refused",
            Frame::Verdict(Err((Refusal::PeerUnattested, "no TPM".into()))),
        ),
    ];
    let denied = Answer::Denied {
        refusal: Refusal::Denied,
        text: "no rule allows it".into(),
    };
    let mut messages = BTreeMap::new();
    for (name, frame) in frames {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        messages.insert(format!("frame: {name}"), hex(&bytes));
    }
    for (name, answer) in [("accepted", Answer::Accepted), ("denied", denied)] {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        messages.insert(format!("answer: {name}"), hex(&bytes));
    }
    messages
}

fn file<T: DeserializeOwned + Serialize + PartialEq + Debug>(name: &str, computed: T) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/vectors")
        .join(name);
    if std::env::var_os("KEDGE_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&computed).expect("plain data");
        std::fs::write(&path, text + "\n").expect("docs/vectors is writable");
    }
    let text = std::fs::read_to_string(&path).expect("docs/vectors is there");
    let written: T = serde_json::from_str(&text).expect("the shape above");
    assert_eq!(written, computed, "{name} differs from the formulas");
    written
}

#[test]
fn the_files_follow_from_the_formulas_of_the_specification() {
    file("flows.json", by_the_formulas());
    file("messages.json", messages());
}

#[test]
fn both_sides_opening_flow_number_one_have_four_distinct_secrets_in_every_suite() {
    let flows = file("flows.json", by_the_formulas()).flows;
    for suite in Suite::ALL {
        let secrets: HashSet<_> = flows
            .iter()
            .filter(|flow| flow.suite == suite.as_str())
            .flat_map(|flow| [&flow.opener_traffic_secret, &flow.acceptor_traffic_secret])
            .collect();
        assert_eq!(secrets.len(), 4, "{suite}");
    }
    let all: HashSet<_> = flows
        .iter()
        .flat_map(|f| {
            [
                &f.opener_traffic_secret,
                &f.acceptor_traffic_secret,
                &f.record_0_secret,
            ]
        })
        .collect();
    assert_eq!(
        all.len(),
        3 * flows.len(),
        "one secret serves one AEAD, flow and direction"
    );
}

#[test]
fn this_crate_seals_and_opens_the_very_bytes_of_the_files() {
    let now = Instant::now();
    let vectors = file("flows.json", by_the_formulas());
    for flow in &vectors.flows {
        let suite = Suite::ALL
            .into_iter()
            .find(|suite| suite.as_str() == flow.suite);
        let inputs = LinkInputs::fixed(suite.expect("one of ours"));
        let role = [Role::TlsClient, Role::TlsServer][usize::from(flow.opener_role)];
        let (mut opener, mut acceptor) = (inputs.half(role, now), inputs.half(role.peer(), now));
        let opening = opener.outbound.opening().expect("numbers");
        let expected = &vectors.openers[usize::from(flow.opener_role)].carrier_1_opening;
        assert_eq!(hex(&opening), *expected);
        carry(flow, &mut opener, &mut acceptor, now);
    }
}

fn carry(flow: &FlowVector, opener: &mut Half, acceptor: &mut Half, now: Instant) {
    let mut flight = Vec::new();
    let new = opener.outbound.open_flow(now).expect("numbers");
    let ours = new.seal_record0(&record0(), &mut flight);
    assert_eq!(hex(&flight), flow.header.clone() + &flow.record_0);
    let (header, record) = flight.split_first_chunk_mut().expect("a header");
    let header = Header::parse(header).expect("our own");
    let pending = acceptor.inbound.flow_secret(now, &header).expect("fresh");
    let opened = pending.open_record0(record).expect("authentic");
    let theirs = acceptor.inbound.commit(now, opened).expect("once").keys;
    let there = (Sealer::new(ours.opener), Unsealer::new(theirs.opener));
    assert_eq!(pass(there, DATA), flow.opener_data_record);
    let back = (Sealer::new(theirs.acceptor), Unsealer::new(ours.acceptor));
    assert_eq!(pass(back, &answer()), flow.acceptor_answer_record);
    let directions = [Direction::FromOpener, Direction::FromAcceptor];
    for (direction, vector) in directions.into_iter().zip(&flow.continuations) {
        let continuation = ours.continuation.continuation(Point {
            direction,
            generation: 1,
            last_record: LAST_RECORD,
        });
        assert_eq!(hex(&continuation.encode()), vector.continuation);
        let confirmation = theirs.continuation.confirmation(&continuation);
        assert_eq!(hex(&confirmation), vector.confirmation);
    }
}

fn pass((mut sealer, mut unsealer): (Sealer, Unsealer), content: &[u8]) -> String {
    let mut slot = vec![0; content.len() + OVERHEAD];
    slot[HEADER_LEN..][..content.len()].copy_from_slice(content);
    sealer
        .seal(ContentType::ApplicationData, &mut slot, content.len())
        .expect("fresh");
    let record = hex(&slot);
    assert_eq!(unsealer.open(&mut slot), Ok(Opened::Data(content)));
    record
}
