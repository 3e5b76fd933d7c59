//! The MAC of carrier openings.

use crate::schedule::Secret;
use crate::wire::Opening;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

/// One opener's carrier key.
pub(crate) struct CarrierKey(hmac::Key);

impl CarrierKey {
    pub(crate) fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA384, secret.bytes()))
    }

    /// The first 16 bytes of HMAC-SHA-384 over everything before the tag.
    pub(crate) fn tag(&self, opening: &Opening) -> [u8; Opening::TAG_LEN] {
        let mac = hmac::sign(&self.0, &opening.covered());
        *mac.as_ref().first_chunk().expect("SHA-384 has 48 bytes")
    }

    pub(crate) fn verifies(&self, opening: &Opening) -> bool {
        verify_slices_are_equal(&self.tag(opening), &opening.tag).is_ok()
    }
}
