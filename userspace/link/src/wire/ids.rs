//! Small values that several messages carry.

use crate::wire::WireError;
use std::fmt;

/// Which side of the link's TLS handshake somebody was; names the opener of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    TlsClient = 0,
    TlsServer = 1,
}

impl Role {
    #[must_use]
    pub fn peer(self) -> Self {
        match self {
            Self::TlsClient => Self::TlsServer,
            Self::TlsServer => Self::TlsClient,
        }
    }

    pub(crate) fn parse(byte: u8, what: &'static str) -> Result<Self, WireError> {
        match byte {
            0 => Ok(Self::TlsClient),
            1 => Ok(Self::TlsServer),
            found => Err(WireError::Value {
                what,
                found: found.into(),
            }),
        }
    }
}

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id16! {
    /// Names a link; derived from its master secret, public, unique.
    LinkId
}
id16! {
    /// A daemon's random identifier, new at each start: a link joins two instances.
    InstanceId
}

/// A workload identity on one link, given by the side that announced it. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u64);

/// How a workload identity was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ProofKind {
    /// The node says so, and the directory must place the workload on it.
    AssertedByNode = 0,
}

impl ProofKind {
    pub(crate) fn parse(byte: u8) -> Result<Self, WireError> {
        match byte {
            0 => Ok(Self::AssertedByNode),
            found => Err(WireError::Value {
                what: "proof kind",
                found: found.into(),
            }),
        }
    }
}
