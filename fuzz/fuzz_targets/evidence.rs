//! Evidence and the structures of the TPM in it: what parses is its own encoding, whatever it says.
#![no_main]

use kedge_attest::limits::EVIDENCE_BYTES_MAX;
use kedge_attest::{AkPublic, Attest, Evidence};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(evidence) = Evidence::parse(data) {
        assert!(data.len() <= EVIDENCE_BYTES_MAX);
        assert_eq!(evidence.encode(), data);
        let _ = evidence.inclusion.root(evidence.claims.leaf());
        let _ = Attest::parse(&evidence.quoted.attest);
    }
    let _ = Attest::parse(data);
    if let Ok(ak) = AkPublic::parse(data) {
        assert_eq!(ak.as_bytes(), data);
    }
});
