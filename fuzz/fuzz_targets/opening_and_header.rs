//! The clear bytes of a carrier: they parse to what they came from or not at all, and without the
//! link's secrets they never pass a tag, open a record or change what is taken afterwards.
#![no_main]

use kedge_link::testing::{Half, LinkInputs};
use kedge_link::wire::{Continuation, Direction, Header, Opening, Point, Record0};
use kedge_link::{FlowKeys, Handle, ProofKind, Role, Turns};
use kedge_model::{OriginalDst, SourceAddr, Suite};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::Instant;

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// As in docs/vectors, which the seeds were taken from.
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

fn half(role: Role) -> Half {
    LinkInputs::fixed(Suite::Aes256Gcm).half(role, *BEGAN)
}

fuzz_target!(|data: &[u8]| {
    opening(data);
    first_flight(data);
    continuation(data);
});

fn opening(data: &[u8]) {
    let Some(bytes) = data.first_chunk() else {
        return;
    };
    let Ok(opening) = Opening::parse(bytes) else {
        return;
    };
    assert_eq!(opening.encode(), *bytes);
    let (mut client, mut server) = (half(Role::TlsClient), half(Role::TlsServer));
    let honest = client.outbound.opening().expect("a fresh link");
    if *bytes != honest {
        assert!(server.inbound.check_opening(&opening).is_err());
    }
    let honest = Opening::parse(&honest).expect("our own");
    assert!(server.inbound.check_opening(&honest).is_ok());
}

fn first_flight(data: &[u8]) {
    let Some((bytes, record)) = data.split_first_chunk() else {
        return;
    };
    let Ok(header) = Header::parse(bytes) else {
        return;
    };
    assert_eq!(header.encode(), *bytes);
    let new = half(Role::TlsClient)
        .outbound
        .open_flow(*BEGAN)
        .expect("a fresh link");
    let honest_header = *new.header();
    let mut honest = Vec::new();
    new.seal_record0(&record0(), &mut honest);
    let mut server = half(Role::TlsServer);
    if let Ok(pending) = server.inbound.flow_secret(*BEGAN, &header) {
        let opened = pending.open_record0(&mut record.to_vec());
        assert_eq!(opened.is_ok(), data == honest);
    }
    assert!(server.inbound.flow_secret(*BEGAN, &honest_header).is_ok());
}

fn continuation(data: &[u8]) {
    let Some(bytes) = data.first_chunk() else {
        return;
    };
    let Ok(continuation) = Continuation::parse(bytes) else {
        return;
    };
    assert_eq!(continuation.encode(), *bytes);
    let flow = || -> FlowKeys {
        let mut client = half(Role::TlsClient).outbound;
        let flow = client.open_flow(*BEGAN).expect("a fresh link");
        flow.seal_record0(&record0(), &mut Vec::new())
    };
    let honest = flow().continuation.continuation(Point {
        direction: Direction::FromOpener,
        generation: 1,
        last_record: (1 << 24) - 1025,
    });
    let mut turns = Turns::new(flow().continuation);
    // The seeds are two honest ones: of either direction.
    if turns.take(&continuation).is_ok() {
        let key = flow().continuation;
        assert_eq!(continuation, key.continuation(continuation.point));
    } else {
        assert!(turns.take(&honest).is_ok());
    }
}
