//! kedge-record
