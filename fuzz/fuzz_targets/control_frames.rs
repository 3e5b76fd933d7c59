//! Frames of the control connection: a stream of them is taken frame by frame, and each known one
//! comes back from its own encoding.
#![no_main]

use kedge_link::wire::Frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some((frame, len))) = Frame::parse(rest) {
        assert!((4..=rest.len()).contains(&len));
        if frame != Frame::Unknown {
            let mut again = Vec::new();
            frame.encode(&mut again);
            assert_eq!(Frame::parse(&again), Ok(Some((frame, again.len()))));
        }
        rest = &rest[len..];
    }
});
