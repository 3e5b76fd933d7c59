//! What is asked of a TPM, and no more. `kedge-tpm` has the one implementation that speaks to a device.

use crate::ak::AkPublic;
use crate::credential::Credential;
use crate::error::TpmError;
use crate::pcr::{PcrSelection, PcrValues};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

/// A quote as the TPM gives it. It also says how often the TPM has begun anew
/// ([`Attest::parse`](crate::Attest::parse)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// What the quoted PCRs held when it was made.
    pub pcrs: PcrValues,
}

/// A TPM 2.0 that has an AK. Calls take as long as the TPM takes: up to a second, or for ever.
pub trait Tpm: Send {
    /// The public half of the AK, which was made at the first start and is found again since.
    ///
    /// # Errors
    /// When the TPM fails.
    fn ak_public(&mut self) -> Result<AkPublic, TpmError>;

    /// The EK certificate that the TPM's maker put into it.
    ///
    /// # Errors
    /// When there is none, or the TPM fails.
    fn ek_certificate(&mut self) -> Result<CertificateDer<'static>, TpmError>;

    /// Quotes `pcrs` with 32 bytes of the caller's in it, signed by the AK.
    ///
    /// # Errors
    /// When the TPM fails, or the PCRs change all the time.
    fn quote(&mut self, qualifying: &[u8; 32], pcrs: PcrSelection) -> Result<Quote, TpmError>;

    /// Opens what a CA has made for the AK of the TPM with this EK (TPM2_ActivateCredential).
    ///
    /// # Errors
    /// When it was made for another AK or EK, or the TPM fails.
    fn activate_credential(
        &mut self,
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError>;
}
