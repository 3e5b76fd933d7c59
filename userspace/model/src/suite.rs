//! The AEADs that seal flows, by their TLS 1.3 cipher suite code points (RFC 8446, B.4).

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    #[serde(rename = "aes-128-gcm")]
    Aes128Gcm,
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl Suite {
    /// In the order in which a node offers them unless its configuration says otherwise.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::ChaCha20Poly1305, Self::Aes128Gcm];

    /// The TLS cipher suite: TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256 or
    /// TLS_AES_128_GCM_SHA256.
    #[must_use]
    pub fn code_point(self) -> u16 {
        match self {
            Self::Aes128Gcm => 0x1301,
            Self::Aes256Gcm => 0x1302,
            Self::ChaCha20Poly1305 => 0x1303,
        }
    }

    /// Bytes of a traffic secret: the suite's hash length.
    #[must_use]
    pub fn secret_len(self) -> usize {
        match self {
            Self::Aes256Gcm => 48,
            Self::Aes128Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cipher suite {0:#06x} is not one of kedge's")]
pub struct UnknownSuite(pub u16);

impl TryFrom<u16> for Suite {
    type Error = UnknownSuite;

    fn try_from(code_point: u16) -> Result<Self, UnknownSuite> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.code_point() == code_point)
            .ok_or(UnknownSuite(code_point))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_points_round_trip_and_others_are_unknown() {
        for suite in Suite::ALL {
            assert_eq!(Suite::try_from(suite.code_point()), Ok(suite));
        }
        assert_eq!(Suite::try_from(0x1304), Err(UnknownSuite(0x1304)));
    }
}
