//! kedge-abi
