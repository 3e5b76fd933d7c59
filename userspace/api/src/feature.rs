//! `kedge feature probe`: what this kernel can do, as tried.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    pub features: Vec<Feature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    pub name: String,
    pub available: bool,
    /// Whether kedge cannot work without; what else is missing it makes up for, as the reason says.
    pub required: bool,
    /// What kedge needs it for, or what the kernel said instead.
    pub reason: String,
}
