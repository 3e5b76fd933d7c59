//! What the outside sees: the admin socket, metrics, events. On the control runtime, away from
//! the dataplane.

mod admin;
mod attest;
mod capabilities;
mod kernel_tls;
mod log;
mod metrics;
mod report;

pub use admin::AdminSocket;
pub use kernel_tls::KernelTls;
pub use log::EventLog;
pub use report::Observed;
