//! Goal: what is handed to the kernel opens and seals the very next records, and the rules that
//! stay behind are those of the userspace path. The kernel's part is played by an AEAD of the
//! library under the key that was handed over.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce};
use aws_lc_rs::aead::{Algorithm, UnboundKey};
use kedge_model::Suite;
use kedge_record::{
    ContentType, DirectionKey, HEADER_LEN, Limits, OVERHEAD, OpenError, Opened, PeerMisbehaved,
    Rekey, SealError, SealLedger, Sealer, TrafficSecret, Unsealer,
};

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

/// A kernel that has a direction's key.
struct Kernel {
    key: LessSafeKey,
    iv: [u8; 12],
    number: u64,
}

impl Kernel {
    fn with(key: DirectionKey) -> Self {
        let algorithm: &Algorithm = match key.suite() {
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let unbound = UnboundKey::new(algorithm, key.key()).expect("its algorithm's length");
        Self {
            key: LessSafeKey::new(unbound),
            iv: *key.iv(),
            number: key.record_number(),
        }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= number;
        }
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&mut self, (kind, content): (ContentType, &[u8])) -> Vec<u8> {
        let length = u16::try_from(content.len() + 17)
            .expect("small")
            .to_be_bytes();
        let header = [23, 3, 3, length[0], length[1]];
        let mut text = [content, &[kind as u8]].concat();
        let nonce = self.nonce();
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(header), &mut text)
            .expect("sealed");
        [&header[..], &text].concat()
    }

    /// The record's content with its type behind it.
    fn open(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        let (header, sealed) = record.split_at(HEADER_LEN);
        let mut sealed = sealed.to_vec();
        let nonce = self.nonce();
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(header), &mut sealed);
        opened.ok().map(|text| text.to_vec())
    }
}

fn data(sealer: &mut Sealer, content: &[u8]) -> Vec<u8> {
    let mut slot = vec![0; content.len() + OVERHEAD];
    slot[HEADER_LEN..][..content.len()].copy_from_slice(content);
    sealer
        .seal(ContentType::ApplicationData, &mut slot, content.len())
        .expect("within the budget");
    slot
}

#[test]
fn the_kernel_seals_from_the_very_next_record_on_and_after_each_update() {
    for suite in Suite::ALL {
        let mut sealer = Sealer::with_limits(secret(suite), SHORT);
        let mut unsealer = Unsealer::with_limits(secret(suite), SHORT);
        for _ in 0..3 {
            let mut record = data(&mut sealer, b"ours");
            assert_eq!(unsealer.open(&mut record), Ok(Opened::Data(b"ours")));
        }
        let (key, mut ledger) = sealer.hand_over();
        assert_eq!(key.record_number(), 3);
        let mut kernel = Kernel::with(key);
        for _ in 0..20 {
            let mut record = kernel.seal((ContentType::ApplicationData, b"the kernel's"));
            ledger.sealed_at_most(1);
            assert_eq!(
                unsealer.open(&mut record),
                Ok(Opened::Data(b"the kernel's"))
            );
            if ledger.wants_rekey().is_some() {
                let mut record = kernel.seal(SealLedger::KEY_UPDATE);
                assert_eq!(unsealer.open(&mut record), Ok(Opened::KeyUpdate));
                kernel = Kernel::with(ledger.update());
            }
        }
        assert!(ledger.key_generation() > 2);
        assert_eq!(ledger.key_generation(), unsealer.key_generation());
        let mut record = kernel.seal(SealLedger::CLOSE_NOTIFY);
        assert_eq!(unsealer.open(&mut record), Ok(Opened::CloseNotify));
    }
}

#[test]
fn the_kernel_opens_from_the_very_next_record_on_and_after_each_update() {
    for suite in Suite::ALL {
        let mut sealer = Sealer::with_limits(secret(suite), SHORT);
        let mut unsealer = Unsealer::with_limits(secret(suite), SHORT);
        unsealer
            .open(&mut data(&mut sealer, b"ours"))
            .expect("the first");
        let (key, mut ledger) = unsealer.hand_over();
        let mut kernel = Kernel::with(key);
        for _ in 0..20 {
            if sealer.wants_rekey().is_some() {
                let mut slot = [0; 5 + OVERHEAD];
                sealer.seal_key_update(&mut slot).expect("kept for it");
                let opened = kernel.open(&slot).expect("authentic");
                let (kind, content) = opened.split_last().expect("a type");
                let number = kernel.number - 1;
                assert_eq!(
                    ledger.consume(*kind, content, number),
                    Ok(Opened::KeyUpdate)
                );
                kernel = Kernel::with(ledger.update());
            }
            let record = data(&mut sealer, b"to the kernel");
            ledger.opened_at_most(1);
            ledger.check().expect("within the budget");
            assert_eq!(
                kernel.open(&record).as_deref(),
                Some(&b"to the kernel\x17"[..])
            );
        }
        assert!(ledger.key_generation() > 2);
    }
}

/// Each connection begins with a record of ours and goes on with the kernel's, at both ends.
#[test]
fn a_direction_that_the_kernel_has_goes_on_elsewhere_under_its_next_key() {
    for suite in Suite::ALL {
        let mut sealer = Sealer::with_limits(secret(suite), SHORT_AND_CONTINUED);
        let mut unsealer = Unsealer::with_limits(secret(suite), SHORT_AND_CONTINUED);
        for generation in 0..20 {
            assert_eq!(sealer.key_generation(), generation);
            assert_eq!(unsealer.key_generation(), generation);
            let mut record = data(&mut sealer, b"ours");
            assert_eq!(unsealer.open(&mut record), Ok(Opened::Data(b"ours")));
            let (sending, mut sent) = sealer.hand_over();
            let (receiving, received) = unsealer.hand_over();
            let (mut sending, mut receiving) = (Kernel::with(sending), Kernel::with(receiving));
            while sent.wants_rekey().is_none() {
                let record = sending.seal((ContentType::ApplicationData, b"the kernels'"));
                sent.sealed_at_most(1);
                let opened = receiving.open(&record);
                assert_eq!(opened.as_deref(), Some(&b"the kernels'\x17"[..]));
            }
            assert_eq!(sent.wants_rekey(), Some(Rekey::Continue));
            let number = receiving.number;
            let mark = receiving.open(&sending.seal(SealLedger::CONTINUE));
            let mark = mark.expect("authentic");
            let (kind, content) = mark.split_last().expect("a type");
            let consumed = received.consume(*kind, content, number);
            assert_eq!(consumed, Ok(Opened::Continue));
            (sealer, unsealer) = (sent.into_next(), received.into_next());
        }
    }
}

#[test]
fn a_ledger_holds_both_sides_to_the_budget_and_believes_the_kernels_count() {
    let (_, mut ours) = Sealer::with_limits(secret(Suite::Aes256Gcm), SHORT).hand_over();
    ours.sealed_at_most(7);
    assert_eq!(ours.check(1), Err(SealError::BudgetExhausted(8)));
    ours.correct(3);
    assert_eq!(ours.check(1), Ok(()));
    let (_, mut theirs) = Unsealer::with_limits(secret(Suite::Aes256Gcm), SHORT).hand_over();
    theirs.opened_at_most(9);
    let exceeded = OpenError::from(PeerMisbehaved::BudgetExceeded(8));
    assert_eq!(theirs.check(), Err(exceeded));
    theirs.correct(8);
    assert_eq!(theirs.check(), Ok(()));
}

#[test]
fn control_records_from_the_kernel_are_judged_like_our_own() {
    let (_, ledger) = Unsealer::with_limits(secret(Suite::Aes256Gcm), SHORT).hand_over();
    type Case = (u8, &'static [u8], u64, Result<Opened<'static>, OpenError>);
    let cases: [Case; 8] = [
        (21, &[1, 0], 9, Ok(Opened::CloseNotify)),
        (21, &[2, 90], 9, Ok(Opened::Reset)),
        (21, &[2, 20], 9, Err(OpenError::PeerAlert(20))),
        (21, &[1], 9, Err(PeerMisbehaved::Alert.into())),
        (
            22,
            &[24, 0, 0, 1, 0],
            3,
            Err(PeerMisbehaved::UpdateTooEarly(3).into()),
        ),
        (
            22,
            &[24, 0, 0, 1, 1],
            9,
            Err(PeerMisbehaved::Handshake.into()),
        ),
        (
            22,
            &[240, 0, 0, 0],
            9,
            Err(PeerMisbehaved::Handshake.into()),
        ),
        (20, &[1], 9, Err(PeerMisbehaved::ContentType(20).into())),
    ];
    for (kind, content, number, expected) in cases {
        assert_eq!(
            ledger.consume(kind, content, number),
            expected,
            "{kind} {content:?}"
        );
    }
}
