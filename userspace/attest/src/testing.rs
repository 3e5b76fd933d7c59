//! A TPM that is none, and a node that has it: for tests of what attests and verifies. It signs with
//! a key in memory and makes the bytes that a TPM makes; it can be told to fail.

use crate::ak::{AkPublic, attributes};
use crate::attest::{ALG_ECDSA, ClockInfo, Counters, MAGIC, QUOTE, qualified_name_in_endorsement};
use crate::batch::Batcher;
use crate::chain::Roots;
use crate::claims::{Caller, Challenge, Claims, NodeKey, Nonce};
use crate::credential::Credential;
use crate::digest::Sha256;
use crate::error::TpmError;
use crate::evidence::{Evidence, Quoted};
use crate::pcr::{ALG_SHA256, PcrSelection, PcrValues};
use crate::reader::put_sized;
use crate::tpm::{Quote, Tpm};
use crate::verify::Expected;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use kedge_model::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// What an AK made by kedge has.
pub const AK_ATTRIBUTES: u32 = attributes::FIXED_TPM
    | attributes::FIXED_PARENT
    | attributes::SENSITIVE_DATA_ORIGIN
    | attributes::USER_WITH_AUTH
    | attributes::NO_DA
    | attributes::RESTRICTED
    | attributes::SIGN;

/// A key in memory that signs what a TPM would sign.
pub struct SoftTpm {
    key: EcdsaKeyPair,
    pub attributes: u32,
    pub pcrs: BTreeMap<u8, Sha256>,
    pub clock: ClockInfo,
    /// First word and kind of what is signed, which a TPM cannot be told.
    pub head: (u32, u16),
    /// The key that the quote says signed it, if another than did.
    pub signer: Option<Vec<u8>>,
    /// A fault, for every quote from now on.
    pub fault: Option<TpmError>,
    pub quotes: u64,
}

impl Default for SoftTpm {
    fn default() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self {
            key: key.expect("the library makes keys"),
            attributes: AK_ATTRIBUTES,
            pcrs: (0..24).map(|index| (index, Sha256([0; 32]))).collect(),
            clock: ClockInfo {
                counters: Counters {
                    reset: 3,
                    restart: 1,
                },
                clock_ms: 1_000,
                safe: true,
            },
            head: (MAGIC, QUOTE),
            signer: None,
            fault: None,
            quotes: 0,
        }
    }
}

impl SoftTpm {
    #[must_use]
    pub fn ak(&self) -> AkPublic {
        let point = self.key.public_key().as_ref();
        let point = point.try_into().expect("a point of P-256");
        AkPublic::parse(&AkPublic::encode(self.attributes, point)).expect("encoded here")
    }

    /// TPM2_PCR_Extend.
    pub fn extend(&mut self, index: u8, digest: Sha256) {
        let value = self.pcrs.entry(index).or_insert(Sha256([0; 32]));
        *value = Sha256::of(&[&value.0, &digest.0]);
    }

    fn attest(&self, qualifying: &[u8], pcrs: &PcrValues) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.head.0.to_be_bytes());
        out.extend_from_slice(&self.head.1.to_be_bytes());
        let name = self.ak().name().to_bytes();
        let signer = || qualified_name_in_endorsement(&name);
        put_sized(&mut out, &self.signer.clone().unwrap_or_else(signer));
        put_sized(&mut out, qualifying);
        out.extend_from_slice(&self.clock.clock_ms.to_be_bytes());
        out.extend_from_slice(&self.clock.counters.reset.to_be_bytes());
        out.extend_from_slice(&self.clock.counters.restart.to_be_bytes());
        out.push(u8::from(self.clock.safe));
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&1_u32.to_be_bytes());
        out.extend_from_slice(&ALG_SHA256.to_be_bytes());
        out.push(3);
        out.extend_from_slice(&pcrs.selection().mask().to_le_bytes()[..3]);
        put_sized(&mut out, &pcrs.digest().0);
        out
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.key.sign(&SystemRandom::new(), message);
        let signature = signature.expect("the library signs");
        let (r, s) = signature.as_ref().split_at(32);
        let mut out = Vec::new();
        out.extend_from_slice(&ALG_ECDSA.to_be_bytes());
        out.extend_from_slice(&ALG_SHA256.to_be_bytes());
        put_sized(&mut out, r);
        put_sized(&mut out, s);
        out
    }
}

impl Tpm for SoftTpm {
    fn ak_public(&mut self) -> Result<AkPublic, TpmError> {
        Ok(self.ak())
    }

    fn ek_certificate(&mut self) -> Result<CertificateDer<'static>, TpmError> {
        Err(TpmError::NoEkCertificate)
    }

    fn quote(&mut self, qualifying: &[u8; 32], pcrs: PcrSelection) -> Result<Quote, TpmError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        self.quotes += 1;
        self.clock.clock_ms += 1;
        let quoted = self.pcrs.iter().filter(|(index, _)| pcrs.contains(**index));
        let pcrs = PcrValues::new(quoted.map(|(index, value)| (*index, *value)));
        let attest = self.attest(qualifying, &pcrs);
        Ok(Quote {
            signature: self.sign(&attest),
            attest,
            pcrs,
        })
    }

    fn activate_credential(
        &mut self,
        _credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        Err(TpmError::Nonsense("activate a credential: there is no EK"))
    }
}

/// A TPM that takes 200 ms for a signature, as those of hardware do.
#[derive(Default)]
pub struct Slowed<T>(pub T);

impl<T: Tpm> Tpm for Slowed<T> {
    fn ak_public(&mut self) -> Result<AkPublic, TpmError> {
        self.0.ak_public()
    }

    fn ek_certificate(&mut self) -> Result<CertificateDer<'static>, TpmError> {
        self.0.ek_certificate()
    }

    fn quote(&mut self, qualifying: &[u8; 32], pcrs: PcrSelection) -> Result<Quote, TpmError> {
        #[expect(clippy::disallowed_methods, reason = "slowness is what it is for")]
        std::thread::sleep(Duration::from_millis(200));
        self.0.quote(qualifying, pcrs)
    }

    fn activate_credential(
        &mut self,
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.0.activate_credential(credential)
    }
}

/// A node with a [`SoftTpm`] whose AK is certified by a root of its own.
pub struct Attester {
    pub tpm: SoftTpm,
    pub node: SpiffeId,
    pub node_key: NodeKey,
    pub selection: PcrSelection,
    pub event_log: Option<Vec<u8>>,
    pub ak_chain: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    root_pem: String,
}

impl Attester {
    /// The node of this name in trust domain `td`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let node = SpiffeId::parse(&format!("spiffe://td/kedge/node/{name}")).expect("a node");
        Self::with_tpm(node, SoftTpm::default())
    }

    #[must_use]
    pub fn with_tpm(node: SpiffeId, tpm: SoftTpm) -> Self {
        let (root, leaf) = certified(&node, &tpm.ak(), &[2, 23, 133, 8, 3]);
        Self {
            node_key: Sha256::of(&[node.as_str().as_bytes()]),
            selection: PcrSelection::of(&[0, 7]),
            event_log: None,
            ak_chain: vec![leaf],
            root_pem: root.pem(),
            root: root.der().clone(),
            node,
            tpm,
        }
    }

    /// The certificate of whoever certifies its AK, PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    #[must_use]
    pub fn roots(&self) -> Roots {
        Roots::new([&self.root]).expect("made here")
    }

    /// What a Verifier expects that has asked `challenge`.
    #[must_use]
    pub fn expected(&self, challenge: Challenge) -> Expected {
        Expected {
            node: self.node.clone(),
            claims: challenge.claims(self.node_key),
        }
    }

    /// # Panics
    /// When the TPM was told to fail.
    pub fn evidence(&mut self, challenge: Challenge) -> Evidence {
        self.evidence_for(vec![challenge]).remove(0)
    }

    /// Evidence for all of them by one quote.
    ///
    /// # Panics
    /// When the TPM was told to fail.
    pub fn evidence_for(&mut self, challenges: Vec<Challenge>) -> Vec<Evidence> {
        let mut batcher = Batcher::new(self.node_key);
        for challenge in challenges {
            let admitted = batcher.submit(challenge, (), Duration::ZERO);
            admitted.unwrap_or_else(|(error, ())| panic!("{error}"));
        }
        let mut batch = batcher.begin(|()| false).expect("somebody waits");
        let quoted = self.quoted(&batch.qualifying_data().0);
        let answers = batcher.complete(batch, Ok(quoted));
        answers
            .into_iter()
            .map(|(_, answer)| answer.expect("quoted"))
            .collect()
    }

    /// # Panics
    /// When the TPM was told to fail.
    pub fn quoted(&mut self, qualifying: &[u8; 32]) -> Arc<Quoted> {
        let quote = self
            .tpm
            .quote(qualifying, self.selection)
            .expect("no fault");
        Arc::new(Quoted {
            attest: quote.attest,
            signature: quote.signature,
            pcrs: quote.pcrs,
            ak: self.tpm.ak(),
            ak_chain: self.ak_chain.clone(),
            event_log: self.event_log.clone(),
        })
    }
}

/// A local challenge of caller "pod" whose nonce is this number.
///
/// # Panics
/// Never: it is within all bounds.
#[must_use]
pub fn challenge(number: u64) -> Challenge {
    challenge_of("pod", number)
}

/// # Panics
/// When the name is too long for a caller.
#[must_use]
pub fn challenge_of(caller: &str, number: u64) -> Challenge {
    let caller = Caller::new(caller).expect("short");
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    Challenge::local(caller, Nonce::new(nonce).expect("16 bytes"))
}

/// The claims with another purpose and exporter, as somebody may send who was not asked for them.
#[must_use]
pub fn claimed_for_link(claims: &Claims, exporter: [u8; 32]) -> Claims {
    Claims {
        purpose: crate::claims::Purpose::Link,
        exporter: Some(exporter),
        ..claims.clone()
    }
}

/// A root, and a certificate of it for `ak` with this extended key usage.
///
/// # Panics
/// When the library makes no certificate.
#[must_use]
pub fn certify(
    node: &SpiffeId,
    ak: &AkPublic,
    usage: &[u64],
) -> (CertificateDer<'static>, CertificateDer<'static>) {
    let (root, leaf) = certified(node, ak, usage);
    (root.der().clone(), leaf)
}

fn certified(
    node: &SpiffeId,
    ak: &AkPublic,
    usage: &[u64],
) -> (rcgen::Certificate, CertificateDer<'static>) {
    let key = rcgen::KeyPair::generate().expect("the library makes keys");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = root.self_signed(&key).expect("a root");
    let issuer = Issuer::new(root, key);
    let mut leaf = CertificateParams::default();
    let uri = node.as_str().try_into().expect("ASCII");
    leaf.subject_alt_names = vec![SanType::URI(uri)];
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(usage.to_vec())];
    let public = SubjectPublicKeyInfo::from_der(&ak.subject_public_key_info()).expect("P-256");
    let leaf = leaf.signed_by(&public, &issuer).expect("a leaf");
    (certificate, leaf.der().clone())
}
