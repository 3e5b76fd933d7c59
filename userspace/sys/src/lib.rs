//! kedge-sys
