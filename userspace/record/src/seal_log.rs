//! Tells a test build of every seal, before it is made, so that a test can show that no record
//! number is ever used twice under one key. Not compiled without the feature `seal-log`.

use crate::secret::TrafficSecret;
use std::sync::OnceLock;

/// Stands for one key and direction. It is derived one way and under a label of its own from the
/// secret that the key comes from: it says which key was used, and nothing about the key.
pub type Fingerprint = [u8; 16];

/// Takes each key's fingerprint and the number of the record that is about to be sealed.
pub type Observer = fn(&Fingerprint, u64);

static OBSERVER: OnceLock<Observer> = OnceLock::new();

/// From now on `observer` is told; the first one stays.
pub fn observe(observer: Observer) {
    let _ = OBSERVER.set(observer);
}

pub(crate) fn fingerprint(secret: &TrafficSecret) -> Fingerprint {
    let mut fingerprint = [0; 16];
    secret.expand("kedge seal log", &mut fingerprint);
    fingerprint
}

pub(crate) fn note(key: &Fingerprint, number: u64) {
    if let Some(observer) = OBSERVER.get() {
        observer(key, number);
    }
}
