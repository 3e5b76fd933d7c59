//! kedge-policy
