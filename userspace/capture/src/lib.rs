//! kedge-capture
