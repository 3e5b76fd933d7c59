//! kedge-link
