//! What the outside sees: the admin socket, the attestation socket, metrics, events. On the control
//! runtime, away from the dataplane.

mod admin;
mod attest;
mod attest_socket;
mod callers;
mod capabilities;
mod kernel_tls;
mod log;
mod metrics;
mod report;
mod socket;

pub use admin::AdminSocket;
pub use attest_socket::AttestSocket;
pub use callers::Cgroups;
pub use kernel_tls::KernelTls;
pub use log::EventLog;
pub use report::Observed;
