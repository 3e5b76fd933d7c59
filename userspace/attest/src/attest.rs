//! What a TPM signs in a quote: TPMS_ATTEST (TPM 2.0 Part 2, 10.12.12), and the signature.

use crate::digest::Sha256;
use crate::error::{Malformed, Rejection};
use crate::pcr::{ALG_SHA256, PcrSelection};
use crate::reader::Reader;

/// TPM_GENERATED_VALUE: no restricted key signs anything else that begins like this.
pub(crate) const MAGIC: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
pub(crate) const QUOTE: u16 = 0x8018;
/// TPM_ALG_ECDSA.
pub(crate) const ALG_ECDSA: u16 = 0x0018;

/// How often the TPM has begun anew: *reset* counts boots, *restart* what came since without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counters {
    pub reset: u32,
    pub restart: u32,
}

/// TPMS_CLOCK_INFO, in the order in which it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockInfo {
    pub counters: Counters,
    /// Milliseconds that the TPM has been powered.
    pub clock_ms: u64,
    /// Whether `clock_ms` has surely never been reported before.
    pub safe: bool,
}

/// A quote as it was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// Qualified name of the key that signs.
    pub signer: Vec<u8>,
    pub extra_data: Vec<u8>,
    pub clock: ClockInfo,
    pub firmware: u64,
    pub selection: PcrSelection,
    pub pcr_digest: Vec<u8>,
}

impl Attest {
    /// # Errors
    /// When it is not made by a TPM, is no quote, or is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let mut reader = Reader::of("TPMS_ATTEST", bytes);
        if reader.u32()? != MAGIC {
            return Err(Rejection::NotFromTpm);
        }
        let kind = reader.u16()?;
        if kind != QUOTE {
            return Err(Rejection::NotAQuote(kind));
        }
        Ok(Self::parse_quote(&mut reader)?)
    }

    fn parse_quote(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let attest = Self {
            signer: reader.sized()?.to_vec(),
            extra_data: reader.sized()?.to_vec(),
            clock: ClockInfo::parse(reader)?,
            firmware: reader.u64()?,
            selection: PcrSelection::parse(reader)?,
            pcr_digest: reader.sized()?.to_vec(),
        };
        reader.end()?;
        Ok(attest)
    }
}

impl ClockInfo {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let clock_ms = reader.u64()?;
        let counters = Counters {
            reset: reader.u32()?,
            restart: reader.u32()?,
        };
        let safe = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.malformed()),
        };
        Ok(Self {
            counters,
            clock_ms,
            safe,
        })
    }
}

/// A TPMT_SIGNATURE (Part 2, 11.3.4) by ECDSA P-256 with SHA-256, as r ‖ s.
pub(crate) fn parse_signature(bytes: &[u8]) -> Result<[u8; 64], Malformed> {
    let mut reader = Reader::of("TPMT_SIGNATURE", bytes);
    reader.expect_u16(ALG_ECDSA)?;
    reader.expect_u16(ALG_SHA256)?;
    let mut fixed = [0; 64];
    for half in fixed.chunks_exact_mut(32) {
        let number = reader.sized()?;
        let start = half.len().checked_sub(number.len());
        let start = start.ok_or(reader.malformed())?;
        half[start..].copy_from_slice(number);
    }
    reader.end()?;
    Ok(fixed)
}

/// The qualified name (Part 1, 26.5) that a primary key of the endorsement hierarchy has. Only keys
/// of that hierarchy state the counters as they are; for others the TPM obscures them.
pub(crate) fn qualified_name_in_endorsement(name: &[u8]) -> Vec<u8> {
    const RH_ENDORSEMENT: u32 = 0x4000_000b;
    let digest = Sha256::of(&[&RH_ENDORSEMENT.to_be_bytes(), name]);
    [&ALG_SHA256.to_be_bytes()[..], &digest.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcr::PcrValues;
    use crate::testing::SoftTpm;
    use crate::tpm::Tpm;

    fn quote() -> crate::tpm::Quote {
        let pcrs = PcrSelection::of(&[0, 7, 23]);
        SoftTpm::default().quote(&[9; 32], pcrs).expect("no fault")
    }

    #[test]
    fn a_quote_is_read_as_it_was_made() {
        let quote = quote();
        let attest = Attest::parse(&quote.attest).expect("a quote");
        assert_eq!(attest.extra_data, [9; 32]);
        assert_eq!(attest.selection, PcrSelection::of(&[0, 7, 23]));
        assert_eq!(attest.pcr_digest, quote.pcrs.digest().0);
        let counters = Counters {
            reset: 3,
            restart: 1,
        };
        assert_eq!(attest.clock.counters, counters);
    }

    #[test]
    fn a_quote_cut_anywhere_or_with_a_byte_more_is_malformed() {
        let bytes = quote().attest;
        for end in 0..bytes.len() {
            assert!(Attest::parse(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert!(Attest::parse(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_quote_of_another_bank_or_of_two_is_malformed() {
        let bytes = quote().attest;
        // TPML_PCR_SELECTION: a count, a bank, a length, as many octets; then the digest.
        let selection = bytes.len() - (2 + 32) - (4 + 2 + 1 + 3);
        for (at, value) in [
            (selection + 3, 2),
            (selection + 5, 0x04),
            (selection + 6, 4),
        ] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let refused = Attest::parse(&changed);
            assert!(matches!(refused, Err(Rejection::Malformed(_))), "byte {at}");
        }
    }

    #[test]
    fn a_signature_is_padded_and_none_longer_is_taken() {
        let short = [&[0, 0x18, 0, 0x0b, 0, 1, 7][..], &[0, 2, 1, 2]].concat();
        let fixed = parse_signature(&short).expect("short numbers");
        assert_eq!((fixed[31], &fixed[62..]), (7, &[1, 2][..]));
        assert!(fixed[..31].iter().all(|byte| *byte == 0));
        let long = [&[0, 0x18, 0, 0x0b, 0, 33][..], &[1; 33], &[0, 1, 1]].concat();
        assert!(parse_signature(&long).is_err());
        assert!(parse_signature(&[&short[..], &[0]].concat()).is_err());
    }

    #[test]
    fn the_digest_of_pcrs_is_of_their_values_in_order_of_their_numbers() {
        let (low, high) = ((2, Sha256([1; 32])), (9, Sha256([2; 32])));
        let digest = Sha256::of(&[&[1; 32], &[2; 32]]);
        assert_eq!(PcrValues::new([high, low]).digest(), digest);
    }
}
