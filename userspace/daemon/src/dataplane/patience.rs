//! How long a flow may take to open and its legs may be silent: ours, or what its client has set
//! on its own socket, where that is stricter.

use crate::limits::{OPENING_MARGIN, OPENING_TIMEOUT};
use kedge_capture::Claim;
use kedge_sys::patience::{Keepalive, Patience};
use std::time::{Duration, Instant};

/// The limits of the legs that the client of this claim does not see.
pub fn of_legs(claim: &Claim) -> Patience {
    let theirs = claim.patience;
    let keepalive = theirs.keepalive.map(|theirs| Keepalive {
        idle: theirs.idle,
        interval: theirs.interval,
        probes: theirs.probes,
    });
    Patience::OURS.or_stricter(theirs.user_timeout, keepalive)
}

/// When the opening that begins now has failed. A client's bytes are unacknowledged by its server
/// until then.
pub fn opening_ends(claim: &Claim) -> Instant {
    let theirs = claim.patience.user_timeout.unwrap_or(Duration::MAX);
    Instant::now() + theirs.saturating_add(OPENING_MARGIN).min(OPENING_TIMEOUT)
}
