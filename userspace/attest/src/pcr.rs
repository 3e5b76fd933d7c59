//! Which PCRs, and what they hold: the SHA-256 bank only.

use crate::digest::Sha256;
use crate::error::Malformed;
use crate::limits::PCRS;
use crate::reader::Reader;
use std::collections::BTreeMap;
use std::fmt;

/// TPM_ALG_SHA256 (TPM 2.0 Part 2, 6.3).
pub(crate) const ALG_SHA256: u16 = 0x000b;

/// A set of PCRs of the SHA-256 bank; bit *n* is PCR *n*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PcrSelection(u32);

impl PcrSelection {
    /// None of them: what a caller quotes who wants a machine's identity and not its state.
    pub const NONE: Self = Self(0);

    /// Those with these numbers; a number above 23 is none of them.
    #[must_use]
    pub fn of(indices: &[u8]) -> Self {
        let known = indices.iter().filter(|index| **index < PCRS);
        Self(known.fold(0, |mask, index| mask | 1 << index))
    }

    #[must_use]
    pub fn contains(self, index: u8) -> bool {
        index < PCRS && self.0 & (1 << index) != 0
    }

    /// In ascending order.
    pub fn indices(self) -> impl Iterator<Item = u8> {
        (0..PCRS).filter(move |index| self.contains(*index))
    }

    /// Bit *n* is PCR *n*.
    #[must_use]
    pub fn mask(self) -> u32 {
        self.0
    }

    pub(crate) fn from_mask(mask: u32) -> Option<Self> {
        (mask < 1 << PCRS).then_some(Self(mask))
    }

    /// A TPML_PCR_SELECTION (Part 2, 10.9.7) of one bank, SHA-256.
    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        if reader.u32()? != 1 {
            return Err(reader.malformed());
        }
        reader.expect_u16(ALG_SHA256)?;
        let len = usize::from(reader.u8()?);
        let octets = reader.take(len)?;
        let mut mask = 0_u32;
        for (at, octet) in octets.iter().enumerate() {
            match at {
                0..3 => mask |= u32::from(*octet) << (8 * at),
                _ if *octet != 0 => return Err(reader.malformed()),
                _ => {}
            }
        }
        Ok(Self(mask))
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indices: Vec<_> = self.indices().map(|index| index.to_string()).collect();
        f.write_str(&indices.join(","))
    }
}

/// What PCRs held, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<u8, Sha256>);

impl PcrValues {
    /// Values of PCRs 0 to 23; others are left out.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = (u8, Sha256)>) -> Self {
        Self(
            values
                .into_iter()
                .filter(|(index, _)| *index < PCRS)
                .collect(),
        )
    }

    #[must_use]
    pub fn selection(&self) -> PcrSelection {
        PcrSelection(self.0.keys().fold(0, |mask, index| mask | 1 << index))
    }

    #[must_use]
    pub fn value(&self, index: u8) -> Option<Sha256> {
        self.0.get(&index).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u8, Sha256)> {
        self.0.iter().map(|(index, value)| (*index, *value))
    }

    /// What a quote states of them: SHA-256 of the values in ascending order (Part 1, 17.5).
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        let parts: Vec<&[u8]> = self.0.values().map(|value| &value.0[..]).collect();
        Sha256::of(&parts)
    }
}
