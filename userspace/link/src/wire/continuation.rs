//! The continuation: the first 56 bytes of a TCP connection on which one direction of a flow goes
//! on under its next key.

use crate::wire::{LinkId, Opening, Role, VERSION, WireError, expect};
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a flow is called as long as it lives: by its first header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowName {
    pub link_id: LinkId,
    /// The opener's.
    pub role: Role,
    pub number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    FromOpener = 0,
    FromAcceptor = 1,
}

/// Where a direction stops on one connection to go on on the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub direction: Direction,
    /// Of the key that begins.
    pub generation: u32,
    /// The number of the Continue, under the key that ends.
    pub last_record: u64,
}

/// Claims the next turn of a flow's direction by a MAC under that flow's continuation key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    pub flow: FlowName,
    pub point: Point,
    pub tag: [u8; Self::TAG_LEN],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    kind: u8,
    version: u8,
    role: u8,
    link_id: [u8; 16],
    number: U64,
    direction: u8,
    generation: U32,
    last_record: U64,
    tag: [u8; Continuation::TAG_LEN],
}

impl Continuation {
    pub const KIND: u8 = b'C';
    pub const LEN: usize = 56;
    pub const TAG_LEN: usize = 16;
    /// The bytes that the tag covers.
    pub const COVERED_LEN: usize = Self::LEN - Self::TAG_LEN;

    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let layout = Layout {
            kind: Self::KIND,
            version: VERSION,
            role: self.flow.role as u8,
            link_id: self.flow.link_id.0,
            number: self.flow.number.into(),
            direction: self.point.direction as u8,
            generation: self.point.generation.into(),
            last_record: self.point.last_record.into(),
            tag: self.tag,
        };
        zerocopy::transmute!(layout)
    }

    /// Whose it is, by as many bytes as the opening of any other carrier has.
    ///
    /// # Errors
    /// When kind, version or role are not those of this version.
    pub fn parse_flow(start: &[u8; Opening::LEN]) -> Result<FlowName, WireError> {
        expect("continuation", Self::KIND, start[0], start[1])?;
        let (link_id, rest) = start[3..].split_first_chunk().expect("43 bytes");
        let number = rest.first_chunk().expect("43 bytes");
        Ok(FlowName {
            link_id: LinkId(*link_id),
            role: Role::parse(start[2], "continuation role")?,
            number: u64::from_be_bytes(*number),
        })
    }

    /// # Errors
    /// As [`parse_flow`](Self::parse_flow), and when there is no such direction. The tag is not
    /// checked here.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Result<Self, WireError> {
        let start = bytes.first_chunk().expect("longer than an opening");
        let flow = Self::parse_flow(start)?;
        let layout: &Layout = zerocopy::transmute_ref!(bytes);
        let direction = match layout.direction {
            0 => Direction::FromOpener,
            1 => Direction::FromAcceptor,
            found => {
                return Err(WireError::Value {
                    what: "continuation direction",
                    found: found.into(),
                });
            }
        };
        let point = Point {
            direction,
            generation: layout.generation.get(),
            last_record: layout.last_record.get(),
        };
        Ok(Self {
            flow,
            point,
            tag: layout.tag,
        })
    }
}
