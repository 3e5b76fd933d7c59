//! A direction's bytes. First as they come: no record opens without the key. Then as content that
//! an authenticated but faulty peer sealed, with any inner type and padding: no message of it
//! panics, and what is data comes out as it went in.
#![no_main]

use kedge_model::Suite;
use kedge_record::{
    ContentType, HEADER_LEN, Limits, OVERHEAD, Opened, Rekey, Sealer, TrafficSecret, Unsealer,
    deframe,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    records_per_key: 16,
    update_margin: 2,
    records_per_update_min: 0,
    rekey: Rekey::InPlace,
};

fn secret(suite: Suite) -> TrafficSecret {
    TrafficSecret::new(suite, &[0x42; 48][..suite.secret_len()])
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let suite = Suite::ALL[usize::from(*choice) % Suite::ALL.len()];
    foreign_bytes(suite, &mut bytes.to_vec());
    faulty_peer(suite, bytes);
});

fn foreign_bytes(suite: Suite, bytes: &mut [u8]) {
    let mut unsealer = Unsealer::new(secret(suite));
    let mut rest = bytes;
    while let Ok(Some(len)) = deframe(rest) {
        let (record, more) = rest.split_at_mut(len);
        assert!(unsealer.open(record).is_err());
        rest = more;
    }
    assert_eq!(unsealer.record_number(), 0);
}

/// `bytes` are records: one of content type, one of length, then the content.
fn faulty_peer(suite: Suite, mut bytes: &[u8]) {
    let mut sealer = Sealer::with_limits(secret(suite), LIMITS);
    let mut unsealer = Unsealer::with_limits(secret(suite), LIMITS);
    while let Some(([kind, len], rest)) = bytes.split_first_chunk() {
        let (content, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        bytes = rest;
        let mut slot = vec![0; content.len() + OVERHEAD];
        slot[HEADER_LEN..][..content.len()].copy_from_slice(content);
        let sealed = match ContentType::try_from(*kind) {
            Ok(content_type) => sealer.seal(content_type, &mut slot, content.len()),
            Err(_) => {
                slot.resize(slot.len().max(OVERHEAD + 5), 0);
                sealer.seal_key_update(&mut slot)
            }
        };
        let Ok(len) = sealed else { return };
        match unsealer.open(&mut slot[..len]) {
            Ok(Opened::Data(opened)) => assert_eq!(opened, content),
            Ok(Opened::KeyUpdate) if ContentType::try_from(*kind).is_err() => {}
            // A KeyUpdate that was sealed as plain content moves one side only.
            Ok(_) | Err(_) => return,
        }
        assert_eq!(sealer.record_number(), unsealer.record_number());
    }
}
