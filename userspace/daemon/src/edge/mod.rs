//! What the outside sees: the admin socket, metrics, events. On the control runtime, away from
//! the dataplane.

mod admin;
mod capabilities;
mod log;
mod metrics;
mod report;

pub use admin::AdminSocket;
pub use log::EventLog;
pub use report::Observed;
