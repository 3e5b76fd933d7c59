//! kedge-identity
