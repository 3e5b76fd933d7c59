//! The opening of a carrier: the first 43 bytes of each TCP connection that will carry a flow.

use crate::wire::{LinkId, Role, VERSION, WireError, expect};
use zerocopy::big_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Claims a link by a MAC under its carrier key, so that strangers cost little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The role of the side that opened the carrier.
    pub role: Role,
    pub link_id: LinkId,
    /// Taken once per link and opener, like a flow number.
    pub carrier: u64,
    pub tag: [u8; Self::TAG_LEN],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    kind: u8,
    version: u8,
    role: u8,
    link_id: [u8; 16],
    carrier: U64,
    tag: [u8; Opening::TAG_LEN],
}

impl Opening {
    pub const KIND: u8 = b'O';
    pub const LEN: usize = 43;
    pub const TAG_LEN: usize = 16;
    /// The bytes that the tag covers.
    pub const COVERED_LEN: usize = Self::LEN - Self::TAG_LEN;

    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let layout = Layout {
            kind: Self::KIND,
            version: VERSION,
            role: self.role as u8,
            link_id: self.link_id.0,
            carrier: self.carrier.into(),
            tag: self.tag,
        };
        zerocopy::transmute!(layout)
    }

    /// The bytes that the tag covers.
    #[must_use]
    pub fn covered(&self) -> [u8; Self::COVERED_LEN] {
        let mut covered = [0; Self::COVERED_LEN];
        covered.copy_from_slice(&self.encode()[..Self::COVERED_LEN]);
        covered
    }

    /// # Errors
    /// When kind, version or role are not those of this version. The tag is not checked here.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, WireError> {
        let layout: &Layout = zerocopy::transmute_ref!(bytes);
        expect("carrier opening", Self::KIND, layout.kind, layout.version)?;
        Ok(Self {
            role: Role::parse(layout.role, "carrier opening role")?,
            link_id: LinkId(layout.link_id),
            carrier: layout.carrier.get(),
            tag: layout.tag,
        })
    }
}
