//! Every bound of this crate, with its unit.

/// Commands beside quotes that may wait for the TPM; challenges have room of their own
/// (`kedge_attest::limits`).
pub const COMMANDS_MAX: usize = 32;
