//! What a record holds: the inner content type and the few messages that kedge uses.

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
