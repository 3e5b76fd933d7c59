//! kedge-logic
