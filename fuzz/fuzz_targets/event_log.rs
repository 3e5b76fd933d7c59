//! The event log of firmware: whatever parses replays, within the bounds.
#![no_main]

use kedge_attest::limits::EVENTS_MAX;
use kedge_attest::{EventLog, PcrValues};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(log) = EventLog::parse(data) {
        assert!(log.events().len() <= EVENTS_MAX);
        let quoted = PcrValues::new(log.replay());
        assert_eq!(log.check(&quoted), Ok(()), "what it replays to");
    }
});
