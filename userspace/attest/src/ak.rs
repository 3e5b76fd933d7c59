//! The AK: TPMT_PUBLIC (TPM 2.0 Part 2, 12.2.4) of a restricted ECDSA P-256 key that only signs what
//! its TPM has made.

use crate::attest::ALG_ECDSA;
use crate::digest::Sha256;
use crate::error::{Malformed, Rejection};
use crate::pcr::ALG_SHA256;
use crate::reader::{Reader, put_sized};

const ALG_ECC: u16 = 0x0023;
const ALG_NULL: u16 = 0x0010;
const ECC_NIST_P256: u16 = 0x0003;

/// TPMA_OBJECT (Part 2, 8.3), as far as an AK must or must not have it.
pub mod attributes {
    pub const FIXED_TPM: u32 = 1 << 1;
    pub const FIXED_PARENT: u32 = 1 << 4;
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    pub const NO_DA: u32 = 1 << 10;
    pub const RESTRICTED: u32 = 1 << 16;
    pub const DECRYPT: u32 = 1 << 17;
    pub const SIGN: u32 = 1 << 18;
}

/// Each attribute that an AK must have, with its name in the standard.
const REQUIRED: [(u32, &str); 5] = [
    (attributes::FIXED_TPM, "fixedTPM"),
    (attributes::FIXED_PARENT, "fixedParent"),
    (attributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
    (attributes::RESTRICTED, "restricted"),
    (attributes::SIGN, "sign"),
];

/// DER of a SubjectPublicKeyInfo for P-256, up to the point.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The public half of an ECDSA P-256 key of a TPM. That it is an AK is a question of its own:
/// [`AkPublic::require_ak`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AkPublic {
    bytes: Vec<u8>,
    attributes: u32,
    point: [u8; 65],
}

/// The name of a key (Part 1, 16): TPM_ALG_SHA256 and the digest of its public area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AkName(pub Sha256);

impl AkPublic {
    /// # Errors
    /// When it is not a TPMT_PUBLIC of an ECDSA P-256 key with SHA-256 in all its roles.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::of("TPMT_PUBLIC", bytes);
        reader.expect_u16(ALG_ECC)?;
        reader.expect_u16(ALG_SHA256)?;
        let attributes = reader.u32()?;
        reader.sized()?; // authPolicy
        reader.expect_u16(ALG_NULL)?; // symmetric
        reader.expect_u16(ALG_ECDSA)?; // scheme
        reader.expect_u16(ALG_SHA256)?;
        reader.expect_u16(ECC_NIST_P256)?;
        reader.expect_u16(ALG_NULL)?; // kdf
        let mut point = [0; 65];
        point[0] = 4;
        for half in point[1..].chunks_exact_mut(32) {
            let number = reader.sized()?;
            let start = half.len().checked_sub(number.len());
            let start = start.ok_or(reader.malformed())?;
            half[start..].copy_from_slice(number);
        }
        reader.end()?;
        Ok(Self {
            bytes: bytes.to_vec(),
            attributes,
            point,
        })
    }

    /// The TPMT_PUBLIC of a key with these attributes and this point (0x04 ‖ x ‖ y).
    #[must_use]
    pub fn encode(attributes: u32, point: &[u8; 65]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&ALG_ECC.to_be_bytes());
        out.extend_from_slice(&ALG_SHA256.to_be_bytes());
        out.extend_from_slice(&attributes.to_be_bytes());
        put_sized(&mut out, &[]);
        for word in [ALG_NULL, ALG_ECDSA, ALG_SHA256, ECC_NIST_P256, ALG_NULL] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        put_sized(&mut out, &point[1..33]);
        put_sized(&mut out, &point[33..]);
        out
    }

    /// That the key lives in one TPM only, was made there, and signs nothing but what that TPM made.
    ///
    /// # Errors
    /// The first attribute that is missing or too many.
    pub fn require_ak(&self) -> Result<(), Rejection> {
        for (bit, name) in REQUIRED {
            if self.attributes & bit == 0 {
                return Err(Rejection::AkLacks(name));
            }
        }
        match self.attributes & attributes::DECRYPT {
            0 => Ok(()),
            _ => Err(Rejection::AkDecrypts),
        }
    }

    #[must_use]
    pub fn name(&self) -> AkName {
        AkName(Sha256::of(&[&self.bytes]))
    }

    /// The TPMT_PUBLIC.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// 0x04 ‖ x ‖ y.
    #[must_use]
    pub fn point(&self) -> &[u8; 65] {
        &self.point
    }

    /// DER of the SubjectPublicKeyInfo.
    #[must_use]
    pub fn subject_public_key_info(&self) -> Vec<u8> {
        spki_p256(&self.point)
    }
}

/// DER of the SubjectPublicKeyInfo of a point (0x04 ‖ x ‖ y).
pub(crate) fn spki_p256(point: &[u8; 65]) -> Vec<u8> {
    [&SPKI_P256[..], point].concat()
}

impl AkName {
    /// As the TPM writes it: the algorithm's number, then the digest.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        [&ALG_SHA256.to_be_bytes()[..], &self.0.0].concat()
    }
}

impl std::fmt::Display for AkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attributes::*;

    const AK: u32 = FIXED_TPM
        | FIXED_PARENT
        | SENSITIVE_DATA_ORIGIN
        | USER_WITH_AUTH
        | NO_DA
        | RESTRICTED
        | SIGN;

    fn key(attributes: u32) -> AkPublic {
        let point = std::array::from_fn(|at| if at == 0 { 4 } else { 7 });
        AkPublic::parse(&AkPublic::encode(attributes, &point)).expect("encoded here")
    }

    #[test]
    fn a_key_that_lacks_one_attribute_of_an_ak_is_refused_by_its_name() {
        assert!(key(AK).require_ak().is_ok());
        for (bit, name) in REQUIRED {
            let refused = key(AK & !bit).require_ak().expect_err(name);
            assert!(matches!(refused, Rejection::AkLacks(lacked) if lacked == name));
        }
    }

    #[test]
    fn a_key_that_decrypts_is_no_ak() {
        let refused = key(AK | DECRYPT).require_ak().expect_err("decrypts");
        assert!(matches!(refused, Rejection::AkDecrypts));
    }

    #[test]
    fn a_public_area_cut_anywhere_or_with_a_byte_more_is_malformed() {
        let bytes = key(AK).as_bytes().to_vec();
        for end in 0..bytes.len() {
            assert!(AkPublic::parse(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert!(AkPublic::parse(&[&bytes[..], &[0]].concat()).is_err());
    }
}
