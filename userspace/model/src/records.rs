//! Who seals and opens the records of flows.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordsMode {
    /// The kernel, as far as its canaries sing, where it was measured to be cheaper.
    #[default]
    Auto,
    /// The daemon.
    Userspace,
    /// The kernel (kTLS), as far as its canaries sing.
    Kernel,
}
