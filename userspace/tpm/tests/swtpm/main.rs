//! Goal: what a TPM really makes is what the Verifier believes, and a CA certifies an AK only if it is
//! in the TPM whose maker vouches for it.
//!
//! ```text
//!   Machine: a TPM ── EK, certified by its maker        CA: Enrolment, Ca::issue_ak
//!      │ libtss2                                         Verifier: roots = the CA, policy = learned
//!   Device ── AK, quotes ─────────── Evidence ─────────►
//! ```

#[macro_use]
mod machine;

mod any_tpm;

use kedge_attest::testing::challenge;
use kedge_attest::{
    AkPublic, Attest, Batcher, EnrolError, Enrolment, Evidence, Expected, Ledger, LedgerError,
    NodeKey, PcrPolicy, PcrSelection, Quoted, Rejection, Request, Roots, Sha256, Tpm, TpmError,
    Verifier,
};
use kedge_identity::Ca;
use kedge_model::{SpiffeId, TrustDomain};
use kedge_tpm::{AK_HANDLE, Device, DeviceConfig, EkKind};
use machine::Machine;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::handles::PersistentTpmHandle;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, PublicBuilder,
    PublicEccParametersBuilder, SymmetricDefinitionObject,
};
use tss_esapi::traits::Marshall;

const NODE_KEY: NodeKey = Sha256([1; 32]);

fn node() -> SpiffeId {
    SpiffeId::parse("spiffe://td/kedge/node/a").expect("a node")
}

fn now() -> UnixTime {
    UnixTime::now()
}

/// The embedded CA, in a folder that goes with it.
struct Authority {
    ca: Ca,
    _folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let domain = TrustDomain::parse("td").expect("a trust domain");
        Self {
            ca: Ca::init(&folder.path().join("ca"), &domain, now()).expect("a CA"),
            _folder: folder,
        }
    }

    fn roots(&self) -> Roots {
        let root = CertificateDer::from_pem_slice(self.ca.bundle_pem().as_bytes());
        Roots::new([&root.expect("a certificate")]).expect("a root")
    }

    /// The whole of enrolment, with the machine's own TPM at the other end.
    fn enrol(&self, machine: &Machine, device: &mut Device) -> CertificateDer<'static> {
        let request = request(machine, device);
        let (enrolment, credential) =
            Enrolment::begin(request, &machine.maker(), now()).expect("in order");
        let opened = device
            .activate_credential(&credential)
            .expect("of this TPM");
        let approved = enrolment.finish(&opened).expect("the secret");
        let spki = approved.ak().subject_public_key_info();
        let day = Duration::from_secs(86_400);
        let issued = self.ca.issue_ak(approved.node(), &spki, day, now());
        let pem = issued.expect("issued").certificate_pem;
        CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
    }
}

fn request(machine: &Machine, device: &mut Device) -> Request {
    Request {
        node: node(),
        ek_chain: vec![
            device.ek_certificate().expect("its maker put one in"),
            machine.intermediate(),
        ],
        ak: device.ak_public().expect("it has one"),
    }
}

/// Evidence for one challenge, straight from the device.
fn attest(device: &mut Device, chain: &[CertificateDer<'static>], number: u64) -> Evidence {
    let mut batcher = Batcher::new(NODE_KEY);
    batcher
        .submit(challenge(number), (), Duration::ZERO)
        .expect("room");
    let mut batch = batcher.begin(|()| false).expect("one waits");
    let pcrs = PcrSelection::of(&[0, 4, 7, 10, 14, 16]);
    let quote = device
        .quote(&batch.qualifying_data().0, pcrs)
        .expect("quotes");
    let quoted = Quoted {
        attest: quote.attest,
        signature: quote.signature,
        pcrs: quote.pcrs,
        ak: device.ak_public().expect("it has one"),
        ak_chain: chain.to_vec(),
        event_log: None,
    };
    let mut answers = batcher.complete(batch, Ok(Arc::new(quoted)));
    let (_, evidence) = answers.next().expect("one answer");
    // Over the wire, as it would come.
    Evidence::parse(&evidence.expect("quoted").encode()).expect("whole")
}

fn expected(number: u64) -> Expected {
    Expected {
        node: node(),
        claims: challenge(number).claims(NODE_KEY),
    }
}

#[test]
fn an_ak_is_kept_in_the_tpm_and_found_again_after_a_reboot() {
    let mut machine = machine_or_skip!();
    let ak = machine.open().expect("opens").ak_public().expect("made");
    let again = machine.open().expect("opens").ak_public().expect("found");
    assert_eq!(again, ak);
    machine.reboot();
    let again = machine.open().expect("opens").ak_public().expect("found");
    assert_eq!(again, ak);
    assert_eq!(ak.require_ak(), Ok(()));
}

#[test]
fn evidence_from_before_a_reboot_is_refused_once_the_tpm_has_been_further() {
    let mut machine = machine_or_skip!();
    let authority = Authority::new();
    let mut device = machine.open().expect("opens");
    let chain = [authority.enrol(&machine, &mut device)];
    let before = attest(&mut device, &chain, 1);
    drop(device);
    machine.reboot();
    let mut device = machine.open().expect("opens");
    let after = attest(&mut device, &chain, 1);
    let counters = |evidence: &Evidence| {
        let attest = Attest::parse(&evidence.quoted.attest).expect("a quote");
        attest.clock.counters
    };
    assert_eq!(counters(&after).reset, counters(&before).reset + 1);
    let policy = PcrPolicy::learn([&before.quoted.pcrs]).expect("PCRs are quoted");
    let verifier = Verifier::new(authority.roots(), policy);
    let mut ledger = Ledger::default();
    assert!(
        verifier
            .verify(&after, &expected(1), &mut ledger, now())
            .is_ok()
    );
    let refused = verifier.verify(&before, &expected(1), &mut ledger, now());
    assert!(matches!(
        refused,
        Err(Rejection::Counters(LedgerError::RolledBack { .. }))
    ));
}

#[test]
fn an_ak_of_another_tpm_than_the_ek_is_not_enrolled() {
    let (machine, other) = (machine_or_skip!(), machine_or_skip!());
    for ek in [EkKind::Rsa2048, EkKind::P384] {
        let open = |machine: &Machine| {
            let config = DeviceConfig {
                ek,
                ..machine.config()
            };
            Device::open(&config).expect("opens")
        };
        let (mut device, mut others) = (open(&machine), open(&other));
        let mut mixed = request(&machine, &mut device);
        mixed.ak = others.ak_public().expect("it has one");
        let (enrolment, credential) =
            Enrolment::begin(mixed, &machine.maker(), now()).expect("nobody can tell yet");
        // The EK's TPM does not have the AK; the AK's TPM does not have the EK.
        for device in [&mut device, &mut others] {
            let refused = device.activate_credential(&credential);
            assert!(
                matches!(refused, Err(TpmError::Failed { .. })),
                "{ek:?}: {refused:?}"
            );
        }
        assert_eq!(enrolment.finish(&[0; 32]), Err(EnrolError::NotInThisTpm));
    }
}

#[test]
fn an_ek_of_a_maker_who_is_not_configured_is_not_enrolled() {
    let (machine, other) = (machine_or_skip!(), machine_or_skip!());
    let mut device = machine.open().expect("opens");
    let request = request(&machine, &mut device);
    for roots in [other.maker(), Roots::default()] {
        let refused = Enrolment::begin(request.clone(), &roots, now());
        assert!(matches!(refused, Err(EnrolError::EkChain(_))));
    }
    // The maker's certificate of the TPM is none of an EK.
    let mut wrong = request;
    wrong.ek_chain.remove(0);
    let refused = Enrolment::begin(wrong, &machine.maker(), now());
    assert!(matches!(refused, Err(EnrolError::EkChain(_))));
}

#[test]
fn a_key_that_is_not_restricted_is_neither_used_nor_enrolled() {
    let machine = machine_or_skip!();
    let ak = make_unrestricted(&machine, AK_HANDLE);
    let refused = machine.open().err();
    assert_eq!(refused, Some(TpmError::HandleTaken(AK_HANDLE)));
    let elsewhere = DeviceConfig {
        ak_handle: AK_HANDLE + 1,
        ..machine.config()
    };
    let mut device = Device::open(&elsewhere).expect("opens");
    let mut request = request(&machine, &mut device);
    request.ak = ak;
    let refused = Enrolment::begin(request, &machine.maker(), now()).err();
    assert_eq!(
        refused,
        Some(EnrolError::Ak(Rejection::AkLacks("restricted")))
    );
}

#[test]
fn a_tpm_that_is_not_there_is_told_as_such() {
    let refused = Device::open(&DeviceConfig::at("swtpm:host=127.0.0.1,port=1")).err();
    assert!(
        matches!(refused, Some(TpmError::Unreachable(_))),
        "{refused:?}"
    );
    let refused = Device::open(&DeviceConfig::at("device:/nonexistent")).err();
    assert!(
        matches!(refused, Some(TpmError::Unreachable(_))),
        "{refused:?}"
    );
    let refused = Device::open(&DeviceConfig::at("telegraph:")).err();
    assert!(
        matches!(refused, Some(TpmError::Unreachable(_))),
        "{refused:?}"
    );
}

/// A key like an AK that signs whatever it is given, at this handle.
fn make_unrestricted(machine: &Machine, handle: u32) -> AkPublic {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_sign_encrypt(true)
        .build()
        .expect("attributes");
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .build()
        .expect("parameters");
    let template = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .expect("a template");
    let place = Persistent::Persistent(PersistentTpmHandle::new(handle).expect("persistent"));
    let public = machine
        .context()
        .execute_with_session(Some(AuthSession::Password), |context| {
            let made =
                context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)?;
            context.evict_control(Provision::Owner, made.key_handle.into(), place)?;
            context.flush_context(made.key_handle.into())?;
            made.out_public.marshall()
        });
    AkPublic::parse(&public.expect("made")).expect("a P-256 key")
}
