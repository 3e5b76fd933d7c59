//! A TPM behind libtss2 (TCG TSS 2.0 Enhanced System API).

use crate::error::failed;
use kedge_attest::{AkPublic, Credential, PcrSelection, PcrValues, Quote, Sha256, Tpm, TpmError};
use rustls_pki_types::CertificateDer;
use std::str::FromStr;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek, pcr};
use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::constants::{CapabilityType, SessionType};
use tss_esapi::handles::{AuthHandle, KeyHandle, ObjectHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{
    AsymmetricAlgorithm, HashingAlgorithm, PublicAlgorithm,
};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{
    CapabilityData, Data, EccPoint, EccScheme, EncryptedSecret, HashScheme, IdObject,
    KeyDerivationFunctionScheme, PcrSelectionList, PcrSlot, Public, PublicBuilder,
    PublicEccParametersBuilder, SignatureScheme, SymmetricDefinition, SymmetricDefinitionObject,
};
use tss_esapi::tcti_ldr::TctiNameConf;
use tss_esapi::traits::Marshall;
use tss_esapi::{Context, Error};
use zeroize::Zeroizing;

/// Where the AK is kept: within the range that TCG gives to primary keys of the endorsement hierarchy.
pub const AK_HANDLE: u32 = 0x8101_4b45;
/// Quotes that are tried while PCRs change under them.
const QUOTES_MAX: usize = 3;

/// Which EK speaks for the TPM in enrolment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EkKind {
    /// Template L-1 of the TCG EK Credential Profile: every TPM has it.
    #[default]
    Rsa2048,
    /// Template H-3.
    P384,
}

/// Which TPM, and which keys of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// As libtss2 names it: `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`.
    pub tcti: String,
    pub ak_handle: u32,
    pub ek: EkKind,
}

impl DeviceConfig {
    /// The TPM at this address, with the usual keys.
    #[must_use]
    pub fn at(tcti: &str) -> Self {
        Self {
            tcti: tcti.to_owned(),
            ak_handle: AK_HANDLE,
            ek: EkKind::default(),
        }
    }
}

/// A TPM of which one process has the keys it needs.
pub struct Device {
    context: Context,
    ak: KeyHandle,
    ak_public: AkPublic,
    ek: EkKind,
}

impl Device {
    /// Opens the TPM and finds its AK at the configured handle; makes it there if nothing is.
    ///
    /// The AK is a primary key of the endorsement hierarchy, so it is the same one again should its
    /// place be cleared, and its quotes state the TPM's counters as they are.
    ///
    /// # Errors
    /// When the TPM is not to be reached, fails, or the handle holds something else.
    pub fn open(config: &DeviceConfig) -> Result<Self, TpmError> {
        const OPEN: &str = "open the TPM";
        let tcti = TctiNameConf::from_str(&config.tcti).map_err(|_| TpmError::Unreachable(OPEN))?;
        let mut context = Context::new(tcti).map_err(|error| failed(OPEN, error))?;
        let handle = PersistentTpmHandle::new(config.ak_handle)
            .map_err(|_| TpmError::HandleTaken(config.ak_handle))?;
        let found = find(&mut context, handle).map_err(|error| failed("look for the AK", error))?;
        let ak = match found {
            Some(found) => found,
            None => make_ak(&mut context, handle).map_err(|error| failed("make an AK", error))?,
        };
        let ak_public = read_ak(&mut context, ak)
            .filter(|public| public.require_ak().is_ok())
            .ok_or(TpmError::HandleTaken(config.ak_handle))?;
        Ok(Self {
            context,
            ak,
            ak_public,
            ek: config.ek,
        })
    }

    fn quote_once(
        &mut self,
        qualifying: &[u8; 32],
        pcrs: PcrSelection,
    ) -> Result<Option<Quote>, Error> {
        let data = Data::try_from(&qualifying[..])?;
        let list = selection_list(pcrs)?;
        let ak = self.ak;
        // A password session: one command. An HMAC session a quote costs ten times as much.
        let (attest, signature) = self
            .context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.quote(ak, data, SignatureScheme::Null, list.clone())
            })?;
        let values = read_pcrs(&mut self.context, pcrs, list)?;
        let quote = Quote {
            attest: attest.marshall()?,
            signature: signature.marshall()?,
            pcrs: values,
        };
        let stated = kedge_attest::Attest::parse(&quote.attest).ok();
        let is_whole = stated.is_some_and(|stated| stated.pcr_digest == quote.pcrs.digest().0);
        Ok(is_whole.then_some(quote))
    }

    fn activate(&mut self, credential: &Credential) -> Result<Zeroizing<Vec<u8>>, Error> {
        let blob = IdObject::try_from(&credential.blob[..])?;
        let seed = EncryptedSecret::try_from(&credential.seed[..])?;
        let (ak, kind) = (self.ak, self.ek);
        let (ek, is_persistent) = ek_handle(&mut self.context, kind)?;
        let opened = match kind {
            EkKind::Rsa2048 => with_endorsement_policy(&mut self.context, |context, policy| {
                let sessions = (Some(AuthSession::Password), Some(policy), None);
                context.execute_with_sessions(sessions, |context| {
                    context.activate_credential(ak, ek, blob, seed)
                })
            }),
            // This template has userWithAuth, and its authorization is empty.
            EkKind::P384 => {
                let password = Some(AuthSession::Password);
                self.context
                    .execute_with_sessions((password, password, None), |context| {
                        context.activate_credential(ak, ek, blob, seed)
                    })
            }
        };
        if !is_persistent {
            self.context.flush_context(ek.into())?;
        }
        Ok(Zeroizing::new(opened?.value().to_vec()))
    }
}

impl Tpm for Device {
    fn ak_public(&mut self) -> Result<AkPublic, TpmError> {
        Ok(self.ak_public.clone())
    }

    fn ek_certificate(&mut self) -> Result<CertificateDer<'static>, TpmError> {
        const READ: &str = "read the EK certificate";
        let tell = |error| failed(READ, error);
        if !is_defined(&mut self.context, self.ek.certificate_index()).map_err(tell)? {
            return Err(TpmError::NoEkCertificate);
        }
        ek::retrieve_ek_pubcert(&mut self.context, self.ek.algorithm())
            .map(CertificateDer::from)
            .map_err(tell)
    }

    fn quote(&mut self, qualifying: &[u8; 32], pcrs: PcrSelection) -> Result<Quote, TpmError> {
        for _ in 0..QUOTES_MAX {
            let quote = self.quote_once(qualifying, pcrs);
            if let Some(quote) = quote.map_err(|error| failed("quote", error))? {
                return Ok(quote);
            }
        }
        Err(TpmError::PcrsRestless(QUOTES_MAX))
    }

    fn activate_credential(
        &mut self,
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.activate(credential)
            .map_err(|error| failed("activate a credential", error))
    }
}

impl EkKind {
    fn algorithm(self) -> AsymmetricAlgorithmSelection {
        match self {
            Self::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
            Self::P384 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384),
        }
    }

    /// Where the maker puts its certificate (EK Credential Profile, 2.2.1.4).
    fn certificate_index(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x01c0_0002,
            Self::P384 => 0x01c0_0016,
        }
    }

    /// Where provisioned machines keep it (TCG Registry of Reserved Handles).
    fn handle(self) -> u32 {
        match self {
            Self::Rsa2048 => 0x8101_0001,
            Self::P384 => 0x8101_0016,
        }
    }
}

/// The object at a persistent handle; `None` when there is none.
fn find(context: &mut Context, handle: PersistentTpmHandle) -> Result<Option<KeyHandle>, Error> {
    if !is_defined(context, handle.into())? {
        return Ok(None);
    }
    let found = context.execute_without_session(|context| {
        context.tr_from_tpm_public(TpmHandle::Persistent(handle))
    });
    found.map(|object| Some(object.into()))
}

/// Whether there is anything at this handle. The TPM lists what is there from a handle on; to use one
/// that is not there would be an error, which libtss2 tells on stderr.
fn is_defined(context: &mut Context, handle: u32) -> Result<bool, Error> {
    let (listed, _) = context.execute_without_session(|context| {
        context.get_capability(CapabilityType::Handles, handle, 1)
    })?;
    let CapabilityData::Handles(handles) = listed else {
        return Ok(false);
    };
    let first = handles.into_inner().into_iter().next();
    Ok(first.is_some_and(|first| u32::from(first) == handle))
}

fn make_ak(context: &mut Context, handle: PersistentTpmHandle) -> Result<KeyHandle, Error> {
    let template = ak_template(ak_attributes()?)?;
    context.execute_with_session(Some(AuthSession::Password), |context| {
        let made =
            context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)?;
        let kept = context.evict_control(
            Provision::Owner,
            made.key_handle.into(),
            Persistent::Persistent(handle),
        );
        context.flush_context(made.key_handle.into())?;
        kept.map(KeyHandle::from)
    })
}

fn ak_attributes() -> Result<ObjectAttributes, Error> {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build()
}

fn ak_template(attributes: ObjectAttributes) -> Result<Public, Error> {
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .with_is_decryption_key(false)
        .with_restricted(attributes.restricted())
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// `None` for what is no key as kedge makes it.
fn read_ak(context: &mut Context, handle: KeyHandle) -> Option<AkPublic> {
    let public = context.execute_without_session(|context| context.read_public(handle));
    let (public, ..) = public.ok()?;
    AkPublic::parse(&public.marshall().ok()?).ok()
}

/// The EK: where it is kept, or made anew from its template; and whether it is kept.
fn ek_handle(context: &mut Context, kind: EkKind) -> Result<(KeyHandle, bool), Error> {
    let handle = PersistentTpmHandle::new(kind.handle())?;
    if let Some(found) = find(context, handle)? {
        return Ok((found, true));
    }
    let made = match kind {
        EkKind::Rsa2048 => ek::create_ek_object(context, AsymmetricAlgorithm::Rsa, None)?,
        EkKind::P384 => ek::create_ek_object_2(context, kind.algorithm(), None)?,
    };
    Ok((made, false))
}

/// Runs `act` with a session that has satisfied the policy of the EK: whoever has the authorization
/// of the endorsement hierarchy (EK Credential Profile, B.3.2, PolicyA).
fn with_endorsement_policy<T>(
    context: &mut Context,
    act: impl FnOnce(&mut Context, AuthSession) -> Result<T, Error>,
) -> Result<T, Error> {
    let session = context.execute_without_session(|context| {
        context.start_auth_session(
            None,
            None,
            None,
            SessionType::Policy,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
    })?;
    let session = session.ok_or(Error::WrapperError(
        tss_esapi::WrapperErrorKind::WrongValueFromTpm,
    ))?;
    let policy = PolicySession::try_from(session)?;
    let done = context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.policy_secret(
                policy,
                AuthHandle::Endorsement,
                Default::default(),
                Default::default(),
                Default::default(),
                None,
            )
        })
        .and_then(|_| act(context, session));
    // A session that was used by a command that succeeded is gone already.
    let _ = context.flush_context(ObjectHandle::from(tss_esapi::handles::SessionHandle::from(
        session,
    )));
    done
}

fn selection_list(pcrs: PcrSelection) -> Result<PcrSelectionList, Error> {
    let slots: Result<Vec<_>, _> = pcrs
        .indices()
        .map(|index| PcrSlot::try_from(1_u32 << index))
        .collect();
    PcrSelectionList::builder()
        .with_selection(HashingAlgorithm::Sha256, &slots?)
        .build()
}

fn read_pcrs(
    context: &mut Context,
    pcrs: PcrSelection,
    list: PcrSelectionList,
) -> Result<PcrValues, Error> {
    if pcrs == PcrSelection::NONE {
        return Ok(PcrValues::default());
    }
    let data = context.execute_without_session(|context| pcr::read_all(context, list))?;
    let bank = data.pcr_bank(HashingAlgorithm::Sha256);
    let mut values = Vec::new();
    for index in pcrs.indices() {
        let slot = PcrSlot::try_from(1_u32 << index)?;
        let digest = bank.and_then(|bank| bank.get_digest(slot));
        if let Some(digest) = digest.and_then(|digest| digest.value().try_into().ok()) {
            values.push((index, Sha256(digest)));
        }
    }
    Ok(PcrValues::new(values))
}
