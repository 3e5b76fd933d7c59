//! TPM2_MakeCredential in software (TPM 2.0 Part 1, 24 and Annexes B and C), for the EKs of the TCG EK
//! Credential Profile: RSA-2048 (template L-1) and ECC P-384 (template H-3).
//!
//! Seeds, padding and ephemeral keys come from the crypto library's generator.

use crate::ak::AkName;
use crate::enrol::EnrolError;
use crate::reader::put_sized;
use aws_lc_rs::agreement::{self, ECDH_P384, EphemeralPrivateKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::digest::{self, Context};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

/// Bytes of what is sealed.
pub(crate) const SECRET_LEN: usize = 32;
/// Labels end with a zero byte (Part 1, 11.4.10).
const IDENTITY: &[u8] = b"IDENTITY\0";

/// What only one TPM opens, and only for one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Content of a TPM2B_ID_OBJECT: HMAC and encrypted secret.
    pub blob: Vec<u8>,
    /// Content of a TPM2B_ENCRYPTED_SECRET: the seed, for the EK.
    pub seed: Vec<u8>,
}

/// The public half of an EK, of which kind follows the rest of its template.
pub(crate) enum EkPublic {
    /// DER of the SubjectPublicKeyInfo. Name SHA-256, AES-128-CFB.
    Rsa2048(Vec<u8>),
    /// 0x04 ‖ x ‖ y. Name SHA-384, AES-256-CFB.
    P384([u8; 97]),
}

impl EkPublic {
    pub(crate) fn parse(spki: &[u8]) -> Result<Self, EnrolError> {
        let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| EnrolError::EkKind)?;
        match parsed.parsed() {
            Ok(PublicKey::RSA(key)) if key.key_size() == 2_048 => Ok(Self::Rsa2048(spki.to_vec())),
            Ok(PublicKey::EC(point)) => point
                .data()
                .try_into()
                .map(Self::P384)
                .map_err(|_| EnrolError::EkKind),
            _ => Err(EnrolError::EkKind),
        }
    }

    fn hash(&self) -> &'static digest::Algorithm {
        match self {
            Self::Rsa2048(_) => &digest::SHA256,
            Self::P384(_) => &digest::SHA384,
        }
    }

    fn hmac(&self) -> hmac::Algorithm {
        match self {
            Self::Rsa2048(_) => hmac::HMAC_SHA256,
            Self::P384(_) => hmac::HMAC_SHA384,
        }
    }

    /// A seed, and its form that only the EK opens.
    fn seed(&self) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), EnrolError> {
        match self {
            Self::Rsa2048(spki) => seed_for_rsa(spki),
            Self::P384(point) => seed_for_p384(point),
        }
    }
}

/// Seals `secret` for the TPM with this EK and its key of this name.
pub(crate) fn make_credential(
    ek: &EkPublic,
    ak: AkName,
    secret: &[u8; SECRET_LEN],
) -> Result<Credential, EnrolError> {
    let (seed, encrypted_seed) = ek.seed()?;
    let name = ak.to_bytes();
    let key_len = match ek {
        EkPublic::Rsa2048(_) => 16,
        EkPublic::P384(_) => 32,
    };
    let key = kdf_a(ek.hmac(), &seed, b"STORAGE\0", &name, key_len);
    let mut identity = Vec::new();
    put_sized(&mut identity, secret);
    encrypt(&key, &mut identity)?;
    let digest_len = ek.hash().output_len();
    let key = kdf_a(ek.hmac(), &seed, b"INTEGRITY\0", &[], digest_len);
    let mut integrity = hmac::Context::with_key(&hmac::Key::new(ek.hmac(), &key));
    integrity.update(&identity);
    integrity.update(&name);
    let mut blob = Vec::new();
    put_sized(&mut blob, integrity.sign().as_ref());
    blob.extend_from_slice(&identity);
    Ok(Credential {
        blob,
        seed: encrypted_seed,
    })
}

/// Annex B.10.3: a random seed, by OAEP with the name algorithm and the label.
fn seed_for_rsa(spki: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), EnrolError> {
    let mut seed = Zeroizing::new(vec![0; digest::SHA256_OUTPUT_LEN]);
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| EnrolError::Library)?;
    let key = PublicEncryptingKey::from_der(spki).map_err(|_| EnrolError::EkKind)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| EnrolError::Library)?;
    let mut sealed = vec![0; key.ciphertext_size()];
    key.encrypt(&OAEP_SHA256_MGF1SHA256, &seed, &mut sealed, Some(IDENTITY))
        .map_err(|_| EnrolError::Library)?;
    Ok((seed, sealed))
}

/// Annex C.6.3: one-pass ECDH with a key of our own, of which the point is sent.
fn seed_for_p384(ek: &[u8; 97]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), EnrolError> {
    let library = |_| EnrolError::Library;
    let ours = EphemeralPrivateKey::generate(&ECDH_P384, &SystemRandom::new()).map_err(library)?;
    let public = ours.compute_public_key().map_err(library)?;
    let (our_x, our_y) = public.as_ref()[1..].split_at(48);
    let theirs = agreement::UnparsedPublicKey::new(&ECDH_P384, ek);
    let seed = agreement::agree_ephemeral(ours, theirs, EnrolError::EkKind, |shared| {
        Ok(kdf_e(shared, our_x, &ek[1..49]))
    })?;
    let mut sent = Vec::new();
    put_sized(&mut sent, our_x);
    put_sized(&mut sent, our_y);
    Ok((seed, sent))
}

/// KDFa (Part 1, 11.4.10.2), which is SP 800-108 in counter mode, for at most one digest's length.
fn kdf_a(
    algorithm: hmac::Algorithm,
    key: &[u8],
    label: &[u8],
    context: &[u8],
    len: usize,
) -> Zeroizing<Vec<u8>> {
    let bits = u32::try_from(8 * len).expect("a digest's length");
    let mut mac = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    mac.update(&1_u32.to_be_bytes());
    mac.update(label);
    mac.update(context);
    mac.update(&bits.to_be_bytes());
    Zeroizing::new(mac.sign().as_ref()[..len].to_vec())
}

/// KDFe (Part 1, 11.4.10.3), which is SP 800-56A, for a seed of SHA-384's length.
fn kdf_e(shared: &[u8], party_u: &[u8], party_v: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut hash = Context::new(&digest::SHA384);
    hash.update(&1_u32.to_be_bytes());
    for part in [shared, IDENTITY, party_u, party_v] {
        hash.update(part);
    }
    Zeroizing::new(hash.finish().as_ref().to_vec())
}

/// CFB with a vector of zeros: the key is used once.
fn encrypt(key: &[u8], in_out: &mut [u8]) -> Result<(), EnrolError> {
    let algorithm = match key.len() {
        16 => &AES_128,
        _ => &AES_256,
    };
    let key = UnboundCipherKey::new(algorithm, key).map_err(|_| EnrolError::Library)?;
    let vector = EncryptionContext::Iv128(FixedLength::from(&[0; 16]));
    EncryptingKey::cfb128(key)
        .and_then(|key| key.less_safe_encrypt(in_out, vector))
        .map(drop)
        .map_err(|_| EnrolError::Library)
}
