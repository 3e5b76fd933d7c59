//! The node's TPM 2.0: one thread owns it, everybody shares its quotes.
//!
//! [`Device`] speaks to a TPM through libtss2 (3.2.1 and later); it is the one place that needs it.
//! [`Broker`] gives a [`Tpm`](kedge_attest::Tpm) its thread: commands come in by a bounded channel,
//! answers are awaited. Two processes at one TPM without a resource manager break each other, so in
//! production the device is `/dev/tpmrm0`, and kedged is asked instead of the TPM.
//!
//! What is quoted, and how it is verified, is in `kedge-attest`, which needs no TPM and no libtss2.

#![forbid(unsafe_code)]

mod broker;
mod device;
mod error;
pub mod limits;
mod owner;

pub use broker::{AskError, Broker, Description, LinkDoor, LocalDoor};
pub use device::{AK_HANDLE, Device, DeviceConfig, EkKind};
