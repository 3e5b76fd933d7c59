//! The sealed messages of a flow's two ends: what parses comes back from its own encoding, within
//! the limits.
#![no_main]

use kedge_link::limits::{ANSWER_PLAINTEXT_MAX, RECORD0_PLAINTEXT_MAX};
use kedge_link::wire::{Answer, Record0};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut again = Vec::new();
    if let Ok(record0) = Record0::parse(data) {
        record0.encode(&mut again);
        assert!(again.len() <= RECORD0_PLAINTEXT_MAX);
        assert_eq!(Record0::parse(&again), Ok(record0));
    }
    again.clear();
    if let Ok(answer) = Answer::parse(data) {
        answer.encode(&mut again);
        assert!(again.len() <= ANSWER_PLAINTEXT_MAX);
        assert_eq!(Answer::parse(&again), Ok(answer));
    }
});
