//! Goal: wherever a capture or a connection ends, also inside a record, whoever has only
//! docs/protocol.md and the link's secret finds records 0 to k, without a gap; and so does this
//! crate.
//!
//! ```text
//!   opener ── opening, header, record 0, data, key update, data, close_notify ──┤ cut at every byte
//!   acceptor ─────────── answer, data, key update, data, reset ─────────────────┤ cut at every byte
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "tests are where the time comes from"
)]

mod common;

use aws_lc_rs::hmac;
use common::formulas::{
    ALERT, APPLICATION_DATA, HANDSHAKE, KEY_UPDATE, Sealed, context, expand_384, hmac_of, open,
    opener_secret, parts, read_records, split_record,
};
use kedge_link::testing::LinkInputs;
use kedge_link::wire::{Answer, Header, Opening, Record0};
use kedge_link::{Handle, ProofKind, Role};
use kedge_model::{OriginalDst, SourceAddr, Suite};
use kedge_record::{
    ContentType, HEADER_LEN, Limits, OVERHEAD, Opened, PLAINTEXT_MAX, Sealer, Unsealer, deframe,
};
use std::time::Instant;

/// One direction: its bytes, and what is in its records.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    sealed: Vec<Sealed>,
    /// Where each record ends.
    ends: Vec<usize>,
}

impl Wire {
    fn note(&mut self, content: &[u8], inner: u8) {
        self.sealed.push((content.to_vec(), inner));
        self.ends.push(self.bytes.len());
    }

    fn data(&mut self, sealer: &mut Sealer, len: usize) {
        let content: Vec<_> = (0..len).map(|at| at.to_le_bytes()[0] ^ 0x5a).collect();
        self.application_data(sealer, &content);
    }

    fn application_data(&mut self, sealer: &mut Sealer, content: &[u8]) {
        let mut slot = vec![0; content.len() + OVERHEAD];
        slot[HEADER_LEN..][..content.len()].copy_from_slice(content);
        let sealed = sealer.seal(ContentType::ApplicationData, &mut slot, content.len());
        self.bytes.extend_from_slice(&slot[..sealed.expect("room")]);
        self.note(content, APPLICATION_DATA);
    }

    /// A message of the record layer's own.
    fn message(
        &mut self,
        content: &[u8],
        inner: u8,
        seal: impl FnOnce(&mut [u8]) -> Result<usize, kedge_record::SealError>,
    ) {
        let mut slot = [0; 64];
        let len = seal(&mut slot).expect("room");
        self.bytes.extend_from_slice(&slot[..len]);
        self.note(content, inner);
    }

    /// The records that are whole before a cut.
    fn whole_at(&self, cut: usize) -> &[Sealed] {
        let count = self.ends.iter().filter(|end| **end <= cut).count();
        &self.sealed[..count]
    }
}

/// A flow as this crate seals it: opener to acceptor, and back. The keys are at the receivers.
struct Recorded {
    up: Wire,
    down: Wire,
    receivers: Box<dyn Fn() -> [Unsealer; 2]>,
}

fn record(suite: Suite, role: Role) -> Recorded {
    let secrets = move || {
        let now = Instant::now();
        let mut half = LinkInputs::fixed(suite).half(role, now).outbound;
        let opening = half.opening().expect("numbers");
        let mut flight = opening.to_vec();
        let flow = half.open_flow(now).expect("numbers");
        let keys = flow.seal_record0(&record0(), &mut flight);
        (flight, keys)
    };
    let (mut up, mut down) = (Wire::default(), Wire::default());
    let (flight, keys) = secrets();
    up.bytes = flight;
    let mut content = Vec::new();
    record0().encode(&mut content);
    up.note(&content, APPLICATION_DATA);
    let mut sealer = Sealer::new(keys.opener);
    for len in [1, 0, 300, PLAINTEXT_MAX] {
        up.data(&mut sealer, len);
    }
    up.message(&KEY_UPDATE, HANDSHAKE, |slot| sealer.seal_key_update(slot));
    for len in [77, 2] {
        up.data(&mut sealer, len);
    }
    up.message(&[1, 0], ALERT, |slot| sealer.seal_close_notify(slot));
    let mut sealer = Sealer::new(keys.acceptor);
    let mut answer = Vec::new();
    Answer::Accepted.encode(&mut answer);
    down.application_data(&mut sealer, &answer);
    for len in [5, 900] {
        down.data(&mut sealer, len);
    }
    down.message(&KEY_UPDATE, HANDSHAKE, |slot| sealer.seal_key_update(slot));
    down.data(&mut sealer, 33);
    down.message(&[2, 90], ALERT, |slot| sealer.seal_reset(slot));
    let receivers = move || {
        let keys = secrets().1;
        // An update after a few records, not 2^16, is what differs from the protocol here.
        let limits = Limits {
            records_per_update_min: 1,
            ..Limits::PROTOCOL
        };
        [keys.opener, keys.acceptor].map(|secret| Unsealer::with_limits(secret, limits))
    };
    Recorded {
        up,
        down,
        receivers: Box::new(receivers),
    }
}

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

/// Whoever has the link's master secret and docs/protocol.md.
struct Independent {
    suite: Suite,
    master: Vec<u8>,
    role: u8,
}

impl Independent {
    fn new(suite: Suite, role: Role) -> Self {
        let inputs = LinkInputs::fixed(suite);
        let salt = [inputs.client_random, inputs.server_random].concat();
        Self {
            suite,
            master: hmac_of(hmac::HMAC_SHA384, &salt, &inputs.exporter),
            role: role as u8,
        }
    }

    /// Everything that the opener has sealed, and both directions' traffic secrets.
    fn read_up(&self, bytes: &[u8]) -> (Vec<Sealed>, Option<[Vec<u8>; 2]>) {
        let Some((carrier, rest)) = bytes.split_at_checked(Opening::LEN + Header::LEN) else {
            return (Vec::new(), None);
        };
        let header = &carrier[Opening::LEN..];
        let (opener, link_id) = opener_secret(&self.master, self.role);
        assert_eq!(header[5..21], link_id);
        let flow = expand_384(&opener, "kedge flow", header, 48);
        let len = parts(self.suite).secret_len;
        let secret = expand_384(&flow, "kedge record 0", b"", len);
        let Some((record, rest)) = split_record(rest) else {
            return (Vec::new(), None);
        };
        let record_0 = open(self.suite, &secret, 0, record).expect("record 0 opens");
        let context = context(header, &record_0.0);
        let directions = ["kedge o ap", "kedge a ap"];
        let secrets = directions.map(|label| expand_384(&flow, label, &context, len));
        let mut sealed = vec![record_0];
        sealed.extend(read_records(self.suite, &secrets[0], rest));
        (sealed, Some(secrets))
    }
}

/// What this crate finds in `bytes`, which begin at a record.
fn by_this_crate(mut unsealer: Unsealer, bytes: &[u8]) -> Vec<Sealed> {
    let mut bytes = bytes.to_vec();
    let (mut at, mut found) = (0, Vec::new());
    while let Some(len) = deframe(&bytes[at..]).expect("whole or cut, never malformed") {
        let opened = unsealer.open(&mut bytes[at..at + len]).expect("authentic");
        found.push(match opened {
            Opened::Data(content) => (content.to_vec(), APPLICATION_DATA),
            Opened::KeyUpdate => (KEY_UPDATE.to_vec(), HANDSHAKE),
            Opened::CloseNotify => (vec![1, 0], ALERT),
            Opened::Reset => (vec![2, 90], ALERT),
            Opened::Continue => unreachable!("keys are updated in place here"),
        });
        at += len;
    }
    found
}

#[test]
fn at_every_cut_an_independent_reader_finds_the_records_before_it_without_a_gap() {
    for (suite, role) in [
        (Suite::Aes256Gcm, Role::TlsClient),
        (Suite::Aes128Gcm, Role::TlsServer),
        (Suite::ChaCha20Poly1305, Role::TlsClient),
    ] {
        let recorded = record(suite, role);
        let reader = Independent::new(suite, role);
        for cut in 0..=recorded.up.bytes.len() {
            let (found, _) = reader.read_up(&recorded.up.bytes[..cut]);
            assert_eq!(found, recorded.up.whole_at(cut), "{suite}, cut at {cut}");
        }
        let secrets = reader
            .read_up(&recorded.up.bytes)
            .1
            .expect("record 0 is there");
        for cut in 0..=recorded.down.bytes.len() {
            let found = read_records(suite, &secrets[1], &recorded.down.bytes[..cut]);
            assert_eq!(
                found,
                recorded.down.whole_at(cut),
                "{suite}, cut at {cut} of the answer"
            );
        }
    }
}

#[test]
fn at_every_cut_the_receiver_finds_the_same_and_waits_for_the_rest() {
    let recorded = record(Suite::Aes256Gcm, Role::TlsClient);
    let start = recorded.up.ends[0];
    for cut in start..=recorded.up.bytes.len() {
        let [unsealer, _] = (recorded.receivers)();
        let found = by_this_crate(unsealer, &recorded.up.bytes[start..cut]);
        assert_eq!(found, recorded.up.whole_at(cut)[1..], "cut at {cut}");
    }
    for cut in 0..=recorded.down.bytes.len() {
        let [_, unsealer] = (recorded.receivers)();
        let found = by_this_crate(unsealer, &recorded.down.bytes[..cut]);
        assert_eq!(
            found,
            recorded.down.whole_at(cut),
            "cut at {cut} of the answer"
        );
    }
}
