//! The clear header in front of a flow's first flight.

use crate::wire::{FlowName, LinkId, Role, VERSION, WireError, expect};
use kedge_model::Suite;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Names link, opener, epoch and number of a flow. Sent in clear; authenticated because the
/// flow's secret is derived from these very bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub suite: Suite,
    /// The opener's role on the link.
    pub role: Role,
    pub link_id: LinkId,
    pub epoch: u32,
    pub number: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    kind: u8,
    version: u8,
    suite: U16,
    role: u8,
    link_id: [u8; 16],
    epoch: U32,
    number: U64,
}

impl Header {
    pub const KIND: u8 = b'H';
    pub const LEN: usize = 33;

    /// What the flow is called from now on.
    #[must_use]
    pub fn flow(&self) -> FlowName {
        FlowName {
            link_id: self.link_id,
            role: self.role,
            number: self.number,
        }
    }

    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let layout = Layout {
            kind: Self::KIND,
            version: VERSION,
            suite: self.suite.code_point().into(),
            role: self.role as u8,
            link_id: self.link_id.0,
            epoch: self.epoch.into(),
            number: self.number.into(),
        };
        zerocopy::transmute!(layout)
    }

    /// # Errors
    /// When kind, version, suite or role are not those of this version.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, WireError> {
        let layout: &Layout = zerocopy::transmute_ref!(bytes);
        expect("clear header", Self::KIND, layout.kind, layout.version)?;
        let suite = layout.suite.get();
        Ok(Self {
            suite: Suite::try_from(suite).map_err(|_| WireError::Value {
                what: "clear header suite",
                found: suite.into(),
            })?,
            role: Role::parse(layout.role, "clear header role")?,
            link_id: LinkId(layout.link_id),
            epoch: layout.epoch.get(),
            number: layout.number.get(),
        })
    }
}
