//! Goal: every message survives its own encoding, and no cut, oversized, doubled or unknown part of
//! one is taken for something else.

use kedge_link::limits::{
    ATTESTATION_RESULT_MAX, ATTESTATION_TEXT_MAX, DENIAL_TEXT_MAX, FRAME_VALUE_MAX, OFFERS_MAX,
    RECORD0_PLAINTEXT_MAX,
};
use kedge_link::wire::{
    Answer, Attesting, Continuation, Direction, FlowName, Frame, Header, Hello, InstanceId, LinkId,
    Opening, Point, Record0, RejectTarget, Shown, WireError,
};
use kedge_link::{Handle, ProofKind, Role};
use kedge_model::{OriginalDst, Refusal, SourceAddr, SpiffeId, Suite};
use kedge_record::Rekey;
use proptest::prelude::*;

fn hello() -> Hello {
    Hello {
        versions: vec![1],
        groups: vec![0x11ec],
        tls_suites: vec![0x1302, 0x1303],
        record_suites: vec![0x1302, 0x1303, 0x1301],
        instance: InstanceId([1; 16]),
        random: [2; 32],
        renews: Some(LinkId([3; 16])),
        successor_of: Some(InstanceId([4; 16])),
        rekey: Some(Rekey::Continue),
        attesting: Some(Attesting::Required),
    }
}

fn frames() -> Vec<Frame> {
    let id = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/web").expect("literal");
    vec![
        Frame::Hello(hello()),
        Frame::Announce {
            handle: Handle(7),
            proof: ProofKind::AssertedByNode,
            id: id.clone(),
        },
        Frame::Request { id: id.clone() },
        Frame::Accept { handle: Handle(7) },
        Frame::Reject {
            target: RejectTarget::Handle(Handle(7)),
            refusal: Refusal::Misplaced,
        },
        Frame::Reject {
            target: RejectTarget::Id(id),
            refusal: Refusal::DestinationUnknown,
        },
        Frame::Renew,
        Frame::Drain,
        Frame::Result(Shown::Result("a.b.c".into())),
        Frame::Result(Shown::Nothing("no TPM".into())),
        Frame::Verdict(Ok(())),
        Frame::Verdict(Err((Refusal::PeerUnattested, "none".into()))),
    ]
}

fn record0(source: &str, destination: &str, instance: &[u8]) -> Record0 {
    Record0 {
        source: Handle(1),
        source_proof: ProofKind::AssertedByNode,
        destination: Handle(u64::MAX),
        source_address: SourceAddr::new(source.parse().expect("literal")),
        destination_address: OriginalDst::new(destination.parse().expect("literal")),
        destination_instance: instance.to_vec(),
    }
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    bytes
}

/// A field: its type without critical bit, whether that is set, its value.
fn field(number: u16, critical: bool, value: &[u8]) -> Vec<u8> {
    let kind = number | u16::from(critical) << 15;
    let len = u16::try_from(value.len()).expect("short");
    [&kind.to_be_bytes()[..], &len.to_be_bytes(), value].concat()
}

#[test]
fn every_frame_comes_back_and_takes_exactly_its_bytes() {
    for frame in frames() {
        let mut bytes = encoded(|out| frame.encode(out));
        let len = bytes.len();
        bytes.extend_from_slice(b"next");
        assert_eq!(Frame::parse(&bytes), Ok(Some((frame, len))));
    }
}

#[test]
fn a_frame_cut_anywhere_waits_for_more() {
    for frame in frames() {
        let bytes = encoded(|out| frame.encode(out));
        for end in 0..bytes.len() {
            assert_eq!(
                Frame::parse(&bytes[..end]),
                Ok(None),
                "{frame:?} cut at {end}"
            );
        }
    }
}

#[test]
fn a_frame_whose_value_is_cut_anywhere_is_refused() {
    for frame in frames() {
        let bytes = encoded(|out| frame.encode(out));
        for end in 1..bytes.len() - 4 {
            let number = u16::from_be_bytes([bytes[0] & 0x7f, bytes[1]]);
            let cut = field(number, true, &bytes[4..4 + end]);
            let taken = Frame::parse(&cut);
            // Cut between two fields, a hello may still be whole: its last three are optional.
            assert!(
                taken.is_err() || matches!(taken, Ok(Some((Frame::Hello(_), _)))),
                "{frame:?} cut at {end}"
            );
        }
    }
}

#[test]
fn an_oversized_frame_is_refused_by_its_header_alone() {
    let len = u16::try_from(FRAME_VALUE_MAX).expect("fits").to_be_bytes();
    assert_eq!(Frame::parse(&[0x80, 2, len[0], len[1]]), Ok(None));
    assert!(matches!(
        Frame::parse(&[0x80, 2, len[0], len[1] + 1]),
        Err(WireError::TooLong(_))
    ));
}

#[test]
fn an_unknown_frame_is_skipped_unless_it_is_critical() {
    assert_eq!(
        Frame::parse(&field(99, false, b"abc")),
        Ok(Some((Frame::Unknown, 7)))
    );
    assert!(matches!(
        Frame::parse(&field(99, true, b"abc")),
        Err(WireError::UnknownCritical { field: 99, .. })
    ));
}

#[test]
fn an_unknown_field_is_skipped_unless_it_is_critical() {
    let extend = |bytes: &[u8], critical| [bytes, &field(99, critical, b"new")].concat();
    for frame in frames() {
        let bytes = encoded(|out| frame.encode(out));
        let number = u16::from_be_bytes([bytes[0] & 0x7f, bytes[1]]);
        let with = |critical| field(number, true, &extend(&bytes[4..], critical));
        assert_eq!(
            Frame::parse(&with(false)).map(|f| f.map(|(f, _)| f)),
            Ok(Some(frame))
        );
        assert!(matches!(
            Frame::parse(&with(true)),
            Err(WireError::UnknownCritical { .. })
        ));
    }
    let record = record0("10.0.0.1:1", "[fd00::1]:2", b"uid");
    let bytes = encoded(|out| record.encode(out));
    assert_eq!(Record0::parse(&extend(&bytes, false)), Ok(record));
    assert!(matches!(
        Record0::parse(&extend(&bytes, true)),
        Err(WireError::UnknownCritical { .. })
    ));
    let bytes = encoded(|out| Answer::Accepted.encode(out));
    assert_eq!(Answer::parse(&extend(&bytes, false)), Ok(Answer::Accepted));
    assert!(Answer::parse(&extend(&bytes, true)).is_err());
}

#[test]
fn a_field_that_occurs_twice_is_refused() {
    let twice = |bytes: &[u8]| [bytes, bytes].concat();
    let record = encoded(|out| record0("10.0.0.1:1", "10.0.0.2:2", b"").encode(out));
    assert!(matches!(
        Record0::parse(&twice(&record)),
        Err(WireError::Duplicate { .. })
    ));
    let answer = encoded(|out| Answer::Accepted.encode(out));
    assert!(matches!(
        Answer::parse(&twice(&answer)),
        Err(WireError::Duplicate { .. })
    ));
    let both = [&answer[..], &field(2, true, &field(1, true, &[0, 1]))].concat();
    assert!(Answer::parse(&both).is_err(), "accepted and denied at once");
    let accept = field(4, true, &twice(&field(1, true, &[7; 8])));
    assert!(matches!(
        Frame::parse(&accept),
        Err(WireError::Duplicate { .. })
    ));
}

#[test]
fn hello_lists_are_neither_empty_nor_odd_nor_endless() {
    let with_versions = |versions: &[u8]| {
        let bytes = encoded(|out| Frame::Hello(hello()).encode(out));
        // The first field of our own encoding is `versions`, one entry long.
        let value = [&field(1, true, versions), &bytes[4 + 6..]].concat();
        Frame::parse(&field(1, true, &value))
    };
    assert!(with_versions(&[0, 1]).is_ok());
    assert!(with_versions(&[]).is_err());
    assert!(with_versions(&[0, 1, 0]).is_err());
    assert!(with_versions(&[0; 2 * OFFERS_MAX]).is_ok());
    assert!(with_versions(&[0; 2 * OFFERS_MAX + 2]).is_err());
}

#[test]
fn a_reject_names_a_handle_or_an_identity_not_both_nor_none() {
    let reason = field(4, true, &[0, 1]);
    let handle = field(1, true, &[7; 8]);
    let id = field(3, true, b"spiffe://td/ns/x/sa/y");
    let reject = |parts: &[&[u8]]| Frame::parse(&field(5, true, &parts.concat()));
    assert!(reject(&[&handle, &reason]).is_ok());
    assert!(reject(&[&id, &reason]).is_ok());
    assert!(reject(&[&handle, &id, &reason]).is_err());
    assert!(reject(&[&reason]).is_err());
    assert!(reject(&[&handle]).is_err());
}

#[test]
fn record_0_comes_back_with_both_families_and_fits_its_limit() {
    for (source, destination) in [
        ("10.0.0.1:1", "10.0.0.2:65535"),
        ("[fd00::1]:1", "[fd00::2]:80"),
        ("10.0.0.1:9", "[::1]:1"),
    ] {
        let record = record0(source, destination, &[0xff; 64]);
        let bytes = encoded(|out| record.encode(out));
        assert!(bytes.len() <= RECORD0_PLAINTEXT_MAX);
        assert_eq!(Record0::parse(&bytes), Ok(record));
    }
}

#[test]
fn record_0_cut_anywhere_or_over_its_limit_is_refused() {
    let record = record0("10.0.0.1:1", "10.0.0.2:2", b"uid");
    let mut bytes = encoded(|out| record.encode(out));
    for end in 0..bytes.len() {
        assert!(Record0::parse(&bytes[..end]).is_err(), "cut at {end}");
    }
    bytes.extend(field(
        99,
        false,
        &vec![0; RECORD0_PLAINTEXT_MAX - bytes.len() - 4],
    ));
    assert_eq!(Record0::parse(&bytes), Ok(record));
    bytes.push(0);
    assert!(matches!(Record0::parse(&bytes), Err(WireError::TooLong(_))));
}

#[test]
fn an_unknown_proof_kind_is_refused() {
    let bytes = encoded(|out| record0("10.0.0.1:1", "10.0.0.2:2", b"").encode(out));
    let at = 12 + 4;
    assert_eq!(bytes[at], 0, "the proof kind's value");
    let changed = [&bytes[..at], &[1], &bytes[at + 1..]].concat();
    assert!(matches!(
        Record0::parse(&changed),
        Err(WireError::Value { .. })
    ));
}

#[test]
fn every_refusal_travels_and_long_texts_are_cut_at_a_character() {
    for refusal in Refusal::ALL {
        let text = "é".repeat(DENIAL_TEXT_MAX);
        let denied = Answer::Denied {
            refusal: *refusal,
            text: format!("x{text}"),
        };
        let bytes = encoded(|out| denied.encode(out));
        let Ok(Answer::Denied {
            refusal: came,
            text,
        }) = Answer::parse(&bytes)
        else {
            panic!("a denial");
        };
        assert_eq!((came, text.len()), (*refusal, DENIAL_TEXT_MAX - 1));
    }
    let newer = field(2, true, &field(1, true, &[0xff, 0xff]));
    assert!(matches!(
        Answer::parse(&newer),
        Ok(Answer::Denied {
            refusal: Refusal::PeerSaysNo,
            ..
        })
    ));
}

#[test]
fn an_empty_answer_is_none() {
    assert!(Answer::parse(&[]).is_err());
}

proptest! {
    #[test]
    fn header_and_opening_come_back(
        suite in prop::sample::select(Suite::ALL.to_vec()),
        server in any::<bool>(),
        link in any::<[u8; 16]>(),
        epoch in any::<u32>(),
        number in any::<u64>(),
        tag in any::<[u8; 16]>(),
    ) {
        let role = if server { Role::TlsServer } else { Role::TlsClient };
        let header = Header { suite, role, link_id: LinkId(link), epoch, number };
        prop_assert_eq!(Header::parse(&header.encode()), Ok(header));
        let opening = Opening { role, link_id: LinkId(link), carrier: number, tag };
        prop_assert_eq!(Opening::parse(&opening.encode()), Ok(opening));
    }

    #[test]
    fn a_continuation_comes_back_and_its_beginning_names_its_flow(
        server in any::<bool>(),
        link in any::<[u8; 16]>(),
        number in any::<u64>(),
        back in any::<bool>(),
        generation in any::<u32>(),
        last_record in any::<u64>(),
        tag in any::<[u8; 16]>(),
    ) {
        let role = if server { Role::TlsServer } else { Role::TlsClient };
        let flow = FlowName { link_id: LinkId(link), role, number };
        let direction = if back { Direction::FromAcceptor } else { Direction::FromOpener };
        let point = Point { direction, generation, last_record };
        let continuation = Continuation { flow, point, tag };
        let bytes = continuation.encode();
        prop_assert_eq!(Continuation::parse(&bytes), Ok(continuation));
        let start = bytes.first_chunk().expect("longer");
        prop_assert_eq!(Continuation::parse_flow(start), Ok(flow));
        prop_assert!(Opening::parse(start).is_err());
        for (at, wrong) in [(0, b'O'), (1, 2), (2, 2), (27, 2)] {
            let mut bytes = bytes;
            bytes[at] = wrong;
            prop_assert!(Continuation::parse(&bytes).is_err());
        }
    }

    #[test]
    fn whatever_bytes_come_no_parser_panics_and_what_parses_comes_back(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        number in 0u16..10,
    ) {
        let framed = field(number, true, &bytes);
        if let Ok(Some((frame, len))) = Frame::parse(&framed) {
            prop_assert_eq!(len, framed.len());
            prop_assert_ne!(&frame, &Frame::Unknown);
            let again = encoded(|out| frame.encode(out));
            prop_assert_eq!(Frame::parse(&again), Ok(Some((frame, again.len()))));
        }
        if let Ok(record) = Record0::parse(&bytes) {
            prop_assert_eq!(Record0::parse(&encoded(|out| record.encode(out))), Ok(record));
        }
        if let Ok(answer) = Answer::parse(&bytes) {
            prop_assert_eq!(Answer::parse(&encoded(|out| answer.encode(out))), Ok(answer));
        }
    }
}

#[test]
fn a_result_is_a_token_or_a_reason_of_bounded_length_and_not_both() {
    let frame = |number: u8, fields: &[u8]| {
        let length = u16::try_from(fields.len()).expect("short").to_be_bytes();
        let bytes = [&[0x80, number], &length[..], fields].concat();
        Frame::parse(&bytes).map(|parsed| parsed.expect("whole").0)
    };
    let field = |number: u8, value: &[u8]| {
        let length = u16::try_from(value.len()).expect("short").to_be_bytes();
        [&[0x80, number], &length[..], value].concat()
    };
    let (token, why) = (field(1, b"a.b.c"), field(2, b"none"));
    assert!(frame(8, &token).is_ok() && frame(8, &why).is_ok());
    let both = [token.clone(), why].concat();
    assert!(matches!(frame(8, &both), Err(WireError::Malformed(_))));
    assert!(matches!(frame(8, &[]), Err(WireError::Malformed(_))));
    let long = field(1, &[b'x'; ATTESTATION_RESULT_MAX + 1]);
    assert!(matches!(frame(8, &long), Err(WireError::TooLong(_))));
    let long = field(2, &[b'x'; ATTESTATION_TEXT_MAX + 1]);
    assert!(matches!(frame(8, &long), Err(WireError::TooLong(_))));
    assert!(matches!(
        frame(8, &field(1, &[0xff])),
        Err(WireError::Malformed(_))
    ));
    assert!(frame(9, &[]).is_err(), "an empty verdict is none");
}
