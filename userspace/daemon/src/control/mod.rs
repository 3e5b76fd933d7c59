//! Turns files into the snapshot that verdicts are made of, and that into what the BPF programs
//! are told. Runs on the control runtime; the dataplane never waits for it.

mod apply;
mod cgroups;
mod farewells;
mod kernel;
mod routes;
mod sources;
mod watch;

pub use apply::{Ages, Control, Initial};
pub use cgroups::join_own;
pub use kernel::{KernelEvents, report_events};
pub use routes::add_capture_routes;
pub use sources::Sources;
pub use watch::watch_workers;
