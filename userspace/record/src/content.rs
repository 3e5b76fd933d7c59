//! What a record holds: the inner content type and the few messages that kedge uses.

use crate::error::{OpenError, PeerMisbehaved};
use crate::limits::{Limits, Rekey};
use crate::open::Opened;

/// The inner content type of a sealed record (RFC 8446, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ContentType {
    Alert = 21,
    Handshake = 22,
    ApplicationData = 23,
}

impl TryFrom<u8> for ContentType {
    type Error = u8;

    fn try_from(byte: u8) -> Result<Self, u8> {
        match byte {
            21 => Ok(Self::Alert),
            22 => Ok(Self::Handshake),
            23 => Ok(Self::ApplicationData),
            other => Err(other),
        }
    }
}

/// The warning alert close_notify (RFC 8446, 6.1): the sender has sent its last byte.
pub(crate) const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// The fatal alert user_canceled (RFC 8446, 6.1): the sender's workload sent a RST.
pub(crate) const USER_CANCELED: [u8; 2] = [2, 90];
/// KeyUpdate with update_not_requested (RFC 8446, 4.6.3).
pub(crate) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// Continue, a message of our own and without content, of a type that TLS leaves for private use.
pub(crate) const CONTINUE: [u8; 4] = [240, 0, 0, 0];

pub(crate) fn consume_alert(content: &[u8]) -> Result<Opened<'static>, OpenError> {
    let alert: [u8; 2] = content.try_into().map_err(|_| PeerMisbehaved::Alert)?;
    match alert {
        CLOSE_NOTIFY => Ok(Opened::CloseNotify),
        USER_CANCELED => Ok(Opened::Reset),
        [_, description] => Err(OpenError::PeerAlert(description)),
    }
}

/// The end of a key. `number` is that of the record: how many this key has carried before it.
pub(crate) fn consume_handshake(
    content: &[u8],
    number: u64,
    limits: &Limits,
) -> Result<Opened<'static>, PeerMisbehaved> {
    let opened = match limits.rekey {
        Rekey::InPlace if content == KEY_UPDATE => Opened::KeyUpdate,
        Rekey::Continue if content == CONTINUE => Opened::Continue,
        _ => return Err(PeerMisbehaved::Handshake),
    };
    if number < limits.records_per_update_min {
        return Err(PeerMisbehaved::UpdateTooEarly(number));
    }
    Ok(opened)
}
