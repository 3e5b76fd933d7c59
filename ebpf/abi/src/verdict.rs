//! What is to happen with a connection, by mode class, prefix and port.
//!
//! A verdict is one word: the action above, an errno below.

use crate::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The connection goes where it asked. Also what holds where no prefix matches: what the
/// directory does not know is not captured.
pub const PASS: u32 = 0;
/// The connection goes to the daemon.
pub const CAPTURE: u32 = 1 << 16;
const REFUSE: u32 = 2 << 16;

/// connect() fails with this errno.
#[inline(always)]
#[must_use]
pub const fn refuse(errno: u16) -> u32 {
    REFUSE | errno as u32
}

/// The errno of a refusal.
#[inline(always)]
#[must_use]
pub const fn errno(verdict: u32) -> Option<u16> {
    if verdict & 0xffff_0000 == REFUSE {
        Some((verdict & 0xffff) as u16)
    } else {
        None
    }
}

/// The bits of an LPM key: class, then address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct VerdictKey {
    /// One of [`crate::class`], big endian as an LPM trie compares from the first bit on.
    pub class_be: u32,
    pub address: Address,
}

const _: () = assert!(size_of::<VerdictKey>() == 20);

impl VerdictKey {
    /// Bits of the class, which every prefix has in full.
    pub const CLASS_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = Self::CLASS_BITS + 128;

    #[inline(always)]
    #[must_use]
    pub const fn new(class: u32, address: Address) -> Self {
        Self {
            class_be: class.to_be(),
            address,
        }
    }
}

/// Key of `VERDICTS` as the kernel has it (`struct bpf_lpm_trie_key`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct LpmKey {
    pub prefix_bits: u32,
    pub key: VerdictKey,
}

const _: () = assert!(size_of::<LpmKey>() == 24);

/// Value of `VERDICTS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct VerdictEntry {
    /// For every port that the port set does not name; see the module.
    pub default: u32,
    /// First part of the keys in `PORTS`; 0: no port differs.
    pub port_set: u32,
}

const _: () = assert!(size_of::<VerdictEntry>() == 8);

/// Key of `PORTS`; its value is a verdict, a `u32`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct PortKey {
    pub port_set: u32,
    /// In host order; the upper half is zero.
    pub port: u32,
}

const _: () = assert!(size_of::<PortKey>() == 8);

#[cfg(test)]
mod tests {
    use crate::verdict;

    #[test]
    fn only_a_refusal_has_an_errno() {
        assert_eq!(verdict::errno(verdict::refuse(113)), Some(113));
        assert_eq!(verdict::errno(verdict::PASS), None);
        assert_eq!(verdict::errno(verdict::CAPTURE), None);
    }
}
