//! What a node and its Verifier say to each other, over HTTP.

use kedge_model::SpiffeId;
use serde::{Deserialize, Serialize};

/// Where things are.
pub mod path {
    /// POST: answers [`super::NonceAnswer`].
    pub const NONCE: &str = "/v1/nonce";
    /// POST of Evidence, with [`super::AppraiseQuery`]: answers the token of an Attestation Result, or
    /// 403 with [`super::Denial`].
    pub const APPRAISE: &str = "/v1/appraise";
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonceAnswer {
    /// The Verifier's name, which Evidence is made for.
    pub verifier: String,
    /// Hexadecimal.
    pub nonce: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppraiseQuery {
    pub node: SpiffeId,
}

/// Why there is no Result. Whoever is on the path can forge one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Short, stable name.
    pub label: String,
    pub cause: String,
    pub remedy: String,
}
