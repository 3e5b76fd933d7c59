//! X.509-SVIDs: who a node is, and how its peer knows.
//!
//! ```text
//!   kedge ca init          kedge ca issue                kedged                    its peer
//!   Ca::init ── ca.key     Ca::issue ── node.pem ─────── NodeSvid::load ── TLS ─── verify_peer
//!               ca.pem                  node.key                                      │
//!                                       bundle.pem                              PeerIdentity
//! ```
//!
//! Verification ([`verify_peer`], [`NodeSvid::parse`]) is pure: certificates, trust and the time are
//! arguments. Files are touched by [`Ca::init`], [`Ca::open`], [`Issued::write`], [`NodeSvid::load`]
//! and [`Trust::load`] only. The rules are those of the SPIFFE X.509-SVID standard, narrowed to what
//! two daemons need: docs/certificates.md lists them.

#![forbid(unsafe_code)]

mod ca;
mod error;
mod files;
pub mod limits;
mod svid;
mod trust;
mod verify;

pub use ca::{Ca, Issued, IssuedAk};
pub use error::{RevocationError, StoreError, SvidError};
pub use files::SvidPaths;
pub use svid::NodeSvid;
pub use trust::{Fingerprint, Trust};
pub use verify::{PeerIdentity, verify_peer};
