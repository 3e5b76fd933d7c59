//! The bytes of the protocol: encoding and parsing, nothing else. docs/protocol.md has the tables.

mod answer;
mod attestation;
mod continuation;
mod control;
mod header;
mod hello;
mod ids;
mod opening;
mod record0;
pub(crate) mod tlv;

pub use answer::Answer;
pub use attestation::{Attesting, Shown, Verdict};
pub use continuation::{Continuation, Direction, FlowName, Point};
pub use control::{Frame, RejectTarget};
pub use header::Header;
pub use hello::Hello;
pub use ids::{Handle, InstanceId, LinkId, ProofKind, Role};
pub use opening::Opening;
pub use record0::Record0;

/// The only version of the carrier opening and the clear header, and so far of the link.
pub const VERSION: u8 = 1;

/// Whether bytes that begin with `kind` and `version` are of this version, and of the kind that is
/// wanted.
fn expect(what: &'static str, wanted: u8, kind: u8, version: u8) -> Result<(), WireError> {
    if kind != wanted {
        return Err(WireError::Kind { what, found: kind });
    }
    if version != VERSION {
        return Err(WireError::Version {
            what,
            found: version,
        });
    }
    Ok(())
}

/// Bytes that are not what the protocol says. Always the peer's, or an attacker's, fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{0}: cut short")]
    Truncated(&'static str),
    #[error("{0}: longer than allowed")]
    TooLong(&'static str),
    #[error("{what}: kind {found:#04x}")]
    Kind { what: &'static str, found: u8 },
    #[error("{what}: version {found}, this daemon speaks version {VERSION}")]
    Version { what: &'static str, found: u8 },
    #[error("{what}: value {found} is not defined")]
    Value { what: &'static str, found: u64 },
    #[error("{0}: not well-formed")]
    Malformed(&'static str),
    #[error("{what}: unknown critical field {field:#06x}")]
    UnknownCritical { what: &'static str, field: u16 },
    #[error("{what}: field {field:#06x} occurs twice")]
    Duplicate { what: &'static str, field: u16 },
    #[error("{what}: field {field:#06x} is missing")]
    Missing { what: &'static str, field: u16 },
}
