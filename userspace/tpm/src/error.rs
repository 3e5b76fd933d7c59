//! What libtss2 says, in our words.

use kedge_attest::TpmError;
use tss_esapi::Error;
use tss_esapi::constants::response_code::Tss2ResponseCode;

/// TPM_RC_LOCKOUT (TPM 2.0 Part 2, 6.6.3).
const LOCKOUT: u32 = 0x0921;
/// The layer of a response code that stands for the way to the TPM (TSS 2.0 Overview, 8.2.3).
const TCTI: u32 = 0x0a;

/// The error of an operation, by whose fault it is.
pub(crate) fn failed(operation: &'static str, error: Error) -> TpmError {
    let Some(code) = code_of(error) else {
        return TpmError::Nonsense(operation);
    };
    match (code >> 16 & 0xff, code & 0xffff) {
        (TCTI, _) => TpmError::Unreachable(operation),
        (_, LOCKOUT) => TpmError::Lockout(operation),
        _ => TpmError::Failed { operation, code },
    }
}

/// The library prints the code, and keeps it to itself otherwise.
fn code_of(error: Error) -> Option<u32> {
    let text = match error {
        Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => code.to_string(),
        Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => code.to_string(),
        Error::Tss2Error(Tss2ResponseCode::Success) | Error::WrapperError(_) => return None,
    };
    let (_, digits) = text.rsplit_once("0x")?;
    u32::from_str_radix(digits, 16).ok()
}
