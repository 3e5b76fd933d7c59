//! Goal: the rules of a direction: what opens, what does not, and when a key must end.

use kedge_model::Suite;
use kedge_record::limits::RECORD_MAX;
use kedge_record::{
    ContentType, FrameError, HEADER_LEN, Limits, OVERHEAD, OpenError, Opened, PLAINTEXT_MAX,
    PeerMisbehaved, Rekey, SealError, Sealer, TrafficSecret, Unsealer, deframe,
};
use proptest::prelude::*;

const SHORT: Limits = Limits {
    records_per_key: 8,
    update_margin: 2,
    records_per_update_min: 4,
    rekey: Rekey::InPlace,
};

const SHORT_AND_CONTINUED: Limits = Limits {
    rekey: Rekey::Continue,
    ..SHORT
};

fn secret(suite: Suite) -> TrafficSecret {
    TrafficSecret::new(suite, &vec![0x42; suite.secret_len()])
}

fn pair(limits: Limits) -> (Sealer, Unsealer) {
    let suite = Suite::Aes256Gcm;
    (
        Sealer::with_limits(secret(suite), limits),
        Unsealer::with_limits(secret(suite), limits),
    )
}

fn seal(sealer: &mut Sealer, content: ContentType, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut slot = vec![0; bytes.len() + OVERHEAD];
    slot[HEADER_LEN..][..bytes.len()].copy_from_slice(bytes);
    sealer.seal(content, &mut slot, bytes.len()).map(|_| slot)
}

fn data(sealer: &mut Sealer, bytes: &[u8]) -> Vec<u8> {
    seal(sealer, ContentType::ApplicationData, bytes).expect("within the budget")
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        u8::from_str_radix(str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal")
    };
    digits.chunks(2).map(byte).collect()
}

/// RFC 8448, section 3: the client's application data and its close_notify.
#[test]
fn the_records_of_rfc_8448_come_out() {
    let client_secret = hex("9e 40 64 6c e7 9a 7f 9d c0 5a f8 88 9b ce 65 52
        87 5a fa 0b 06 df 00 87 f7 92 eb b7 c1 75 04 a5");
    let mut sealer = Sealer::new(TrafficSecret::new(Suite::Aes128Gcm, &client_secret));
    let content: Vec<u8> = (0..50).collect();
    assert_eq!(
        data(&mut sealer, &content),
        hex(
            "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb ef ac ea 42 f9 14 aa
            66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a 62 92 a2 97
            70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4"
        )
    );
    let mut slot = [0; 24];
    assert_eq!(sealer.seal_close_notify(&mut slot), Ok(24));
    assert_eq!(
        slot[..],
        hex("17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3")
    );
}

#[test]
fn a_changed_byte_anywhere_is_refused_and_the_true_record_still_opens() {
    for suite in Suite::ALL {
        let (mut sealer, mut unsealer) = (Sealer::new(secret(suite)), Unsealer::new(secret(suite)));
        let record = data(&mut sealer, b"as it was");
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 0x80;
            let error = unsealer.open(&mut changed).expect_err("changed");
            let expected_frame = at < HEADER_LEN;
            assert_eq!(
                matches!(error, OpenError::Frame(_)),
                expected_frame,
                "{suite} {at}"
            );
        }
        assert_eq!(
            unsealer.open(&mut record.clone()),
            Ok(Opened::Data(b"as it was"))
        );
    }
}

#[test]
fn a_record_opens_only_in_its_place() {
    let (mut sealer, mut unsealer) = pair(Limits::PROTOCOL);
    let (first, second) = (data(&mut sealer, b"1"), data(&mut sealer, b"2"));
    assert_eq!(
        unsealer.open(&mut second.clone()),
        Err(OpenError::Forged(0)),
        "reordered"
    );
    assert_eq!(unsealer.open(&mut first.clone()), Ok(Opened::Data(b"1")));
    assert_eq!(
        unsealer.open(&mut first.clone()),
        Err(OpenError::Forged(1)),
        "replayed"
    );
    assert_eq!(unsealer.open(&mut second.clone()), Ok(Opened::Data(b"2")));
}

#[test]
fn a_record_of_another_suite_does_not_open() {
    let mut record = data(&mut Sealer::new(secret(Suite::ChaCha20Poly1305)), b"x");
    let mut unsealer = Unsealer::new(secret(Suite::Aes128Gcm));
    assert_eq!(unsealer.open(&mut record), Err(OpenError::Forged(0)));
}

#[test]
fn a_cut_or_overlong_buffer_is_not_a_record() {
    let (mut sealer, mut unsealer) = pair(Limits::PROTOCOL);
    let record = data(&mut sealer, b"whole");
    for end in 0..record.len() {
        let error = unsealer.open(&mut record[..end].to_vec()).expect_err("cut");
        assert!(
            matches!(error, OpenError::Frame(FrameError::Incomplete { .. })),
            "{end}"
        );
    }
    let longer = [&record[..], &[0]].concat();
    assert!(unsealer.open(&mut longer.clone()).is_err());
}

#[test]
fn the_sender_wants_an_update_before_its_budget_ends_and_stops_at_the_end() {
    let (mut sealer, mut unsealer) = pair(SHORT);
    for number in 0..7 {
        assert_eq!(sealer.wants_rekey().is_some(), number >= 6);
        let mut record = data(&mut sealer, b"x");
        assert_eq!(unsealer.open(&mut record), Ok(Opened::Data(b"x")));
    }
    let over = seal(&mut sealer, ContentType::ApplicationData, b"x");
    assert_eq!(over, Err(SealError::BudgetExhausted(8)));
    let mut slot = [0; OVERHEAD + 5];
    let len = sealer
        .seal_key_update(&mut slot)
        .expect("the last record is kept for this");
    assert_eq!(unsealer.open(&mut slot[..len]), Ok(Opened::KeyUpdate));
    assert_eq!((sealer.key_generation(), unsealer.key_generation()), (1, 1));
    assert_eq!((sealer.record_number(), unsealer.record_number()), (0, 0));
    let mut record = data(&mut sealer, b"under the next key");
    assert_eq!(
        unsealer.open(&mut record),
        Ok(Opened::Data(b"under the next key"))
    );
}

#[test]
fn the_receiver_refuses_a_record_beyond_the_budget() {
    let (mut generous, _) = pair(Limits::PROTOCOL);
    let (_, mut unsealer) = pair(SHORT);
    for _ in 0..8 {
        assert!(unsealer.open(&mut data(&mut generous, b"x")).is_ok());
    }
    assert_eq!(
        unsealer.open(&mut data(&mut generous, b"x")),
        Err(OpenError::PeerMisbehaved(PeerMisbehaved::BudgetExceeded(8)))
    );
}

#[test]
fn the_receiver_refuses_updates_that_come_too_fast() {
    let (mut sealer, mut unsealer) = pair(SHORT);
    for _ in 0..3 {
        assert!(unsealer.open(&mut data(&mut sealer, b"x")).is_ok());
    }
    let mut slot = [0; OVERHEAD + 5];
    sealer
        .seal_key_update(&mut slot)
        .expect("within the budget");
    assert_eq!(
        unsealer.open(&mut slot),
        Err(OpenError::PeerMisbehaved(PeerMisbehaved::UpdateTooEarly(3)))
    );
}

#[test]
fn a_direction_goes_on_elsewhere_under_the_key_that_an_update_would_have_begun() {
    let (mut updated, _) = pair(SHORT);
    let (mut sealer, mut unsealer) = pair(SHORT_AND_CONTINUED);
    for generation in 1..=20 {
        while sealer.wants_rekey().is_none() {
            data(&mut updated, b"x");
            let mut record = data(&mut sealer, b"x");
            assert_eq!(unsealer.open(&mut record), Ok(Opened::Data(b"x")));
        }
        updated
            .seal_key_update(&mut [0; OVERHEAD + 5])
            .expect("due");
        let mut slot = [0; OVERHEAD + 4];
        sealer.seal_continue(&mut slot).expect("due");
        assert_eq!(unsealer.open(&mut slot), Ok(Opened::Continue));
        (sealer, unsealer) = (sealer.into_next(), unsealer.into_next());
        let keys = [sealer.key_generation(), unsealer.key_generation()];
        assert_eq!(keys, [generation; 2]);
        let mut record = data(&mut sealer, b"there");
        assert_eq!(record, data(&mut updated, b"there"));
        assert_eq!(unsealer.open(&mut record), Ok(Opened::Data(b"there")));
    }
}

#[test]
fn nothing_follows_a_continue_and_none_comes_too_fast() {
    let (mut sealer, mut unsealer) = pair(SHORT_AND_CONTINUED);
    let (mut hasty, mut patient) = pair(SHORT_AND_CONTINUED);
    let mut slot = [0; OVERHEAD + 4];
    hasty.seal_continue(&mut slot).expect("within the budget");
    let too_early = PeerMisbehaved::UpdateTooEarly(0);
    assert_eq!(patient.open(&mut slot), Err(too_early.into()));
    for _ in 0..4 {
        let mut record = data(&mut sealer, b"x");
        assert!(unsealer.open(&mut record).is_ok());
    }
    sealer.seal_continue(&mut slot).expect("within the budget");
    assert_eq!(unsealer.open(&mut slot), Ok(Opened::Continue));
    let after = seal(&mut sealer, ContentType::ApplicationData, b"x");
    assert_eq!(after, Err(SealError::Closed));
    let after = Err(PeerMisbehaved::AfterClose.into());
    assert_eq!(unsealer.open(&mut slot), after);
}

#[test]
fn on_each_link_one_of_key_update_and_continue_is_no_message() {
    for (limits, other) in [
        (SHORT, Rekey::Continue),
        (SHORT_AND_CONTINUED, Rekey::InPlace),
    ] {
        let (mut sealer, mut unsealer) = pair(limits);
        for _ in 0..4 {
            let mut record = data(&mut sealer, b"x");
            assert!(unsealer.open(&mut record).is_ok());
        }
        let mut slot = [0; OVERHEAD + 5];
        let len = match other {
            Rekey::InPlace => sealer.seal_key_update(&mut slot),
            Rekey::Continue => sealer.seal_continue(&mut slot),
        };
        let opened = unsealer.open(&mut slot[..len.expect("within the budget")]);
        assert_eq!(opened, Err(PeerMisbehaved::Handshake.into()));
    }
}

#[test]
fn an_alert_ends_its_direction_at_both_ends() {
    let mut slot = [0; OVERHEAD + 2];
    let (mut sealer, mut unsealer) = pair(Limits::PROTOCOL);
    let (_, mut late) = pair(Limits::PROTOCOL);
    sealer.seal_close_notify(&mut slot).expect("open");
    assert_eq!(unsealer.open(&mut slot), Ok(Opened::CloseNotify));
    assert_eq!(
        seal(&mut sealer, ContentType::ApplicationData, b"x"),
        Err(SealError::Closed)
    );
    let after = Err(OpenError::PeerMisbehaved(PeerMisbehaved::AfterClose));
    assert_eq!(unsealer.open(&mut slot), after);
    let (mut sealer, _) = pair(Limits::PROTOCOL);
    sealer.seal_reset(&mut slot).expect("open");
    assert_eq!(late.open(&mut slot), Ok(Opened::Reset));
}

#[test]
fn messages_that_kedge_does_not_use_are_errors() {
    use ContentType::{Alert, Handshake};
    let misbehaved = |reason| Err(OpenError::PeerMisbehaved(reason));
    let table: &[(ContentType, &[u8], Result<Opened<'_>, OpenError>)] = &[
        (Alert, &[2, 40], Err(OpenError::PeerAlert(40))),
        (Alert, &[1, 90], Err(OpenError::PeerAlert(90))),
        (Alert, &[2], misbehaved(PeerMisbehaved::Alert)),
        (Alert, &[1, 0, 1, 0], misbehaved(PeerMisbehaved::Alert)),
        // KeyUpdate that requests one, cut, and doubled; a NewSessionTicket.
        (
            Handshake,
            &[24, 0, 0, 1, 1],
            misbehaved(PeerMisbehaved::Handshake),
        ),
        (
            Handshake,
            &[24, 0, 0, 1],
            misbehaved(PeerMisbehaved::Handshake),
        ),
        (
            Handshake,
            &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
            misbehaved(PeerMisbehaved::Handshake),
        ),
        (
            Handshake,
            &[4, 0, 0, 0],
            misbehaved(PeerMisbehaved::Handshake),
        ),
    ];
    for (content, message, expected) in table {
        let (mut sealer, mut unsealer) = pair(Limits::PROTOCOL);
        let mut record = seal(&mut sealer, *content, message).expect("fits");
        assert_eq!(unsealer.open(&mut record), *expected, "{message:?}");
    }
}

#[test]
fn a_wrong_use_seals_nothing_and_uses_no_number() {
    let (mut sealer, _) = pair(Limits::PROTOCOL);
    let mut slot = vec![0; RECORD_MAX + 1];
    let mut seal = |slot: &mut [u8], len| sealer.seal(ContentType::ApplicationData, slot, len);
    assert_eq!(
        seal(&mut slot, PLAINTEXT_MAX + 1),
        Err(SealError::TooLong(PLAINTEXT_MAX + 1))
    );
    let small = SealError::SlotTooSmall { need: 32, have: 31 };
    assert_eq!(seal(&mut slot[..31], 10), Err(small));
    assert!(slot.iter().all(|byte| *byte == 0));
    assert_eq!(sealer.record_number(), 0);
}

proptest! {
    #[test]
    fn any_stream_of_records_comes_back(
        suite in prop::sample::select(Suite::ALL.to_vec()),
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2_000), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut sealer, mut unsealer) =
            (Sealer::new(secret(suite)), Unsealer::new(secret(suite)));
        let mut stream: Vec<u8> = contents.iter().flat_map(|c| data(&mut sealer, c)).collect();
        prop_assert!(deframe(&stream[..cut.index(stream.len())]).is_ok());
        let mut rest = &mut stream[..];
        for content in &contents {
            let len = deframe(rest).expect("our own").expect("whole");
            let (record, more) = rest.split_at_mut(len);
            prop_assert_eq!(unsealer.open(record), Ok(Opened::Data(content)));
            rest = more;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn no_bytes_make_deframing_or_opening_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..100)
    ) {
        if let Some(start) = bytes.first_chunk_mut::<4>() {
            *start = [23, 3, 3, 0];
        }
        let _ = deframe(&bytes);
        prop_assert!(Unsealer::new(secret(Suite::Aes128Gcm)).open(&mut bytes).is_err());
    }
}
