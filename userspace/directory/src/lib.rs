//! kedge-directory
