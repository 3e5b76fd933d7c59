//! Every bound of this crate, with its unit.

use std::time::Duration;

/// How long a leaf lives unless the operator says otherwise.
pub const LEAF_LIFETIME_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// The longest life of a leaf: a stolen key that nobody has missed must age out.
pub const LEAF_LIFETIME_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long the CA's own certificate lives.
pub const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How far before its issue a certificate begins, so that a node whose clock is behind accepts it.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Certificates in a chain file: the leaf and its intermediates.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;
/// Anchors in a trust bundle.
pub const BUNDLE_ANCHORS_MAX: usize = 64;
/// Bytes of a certificate, key or bundle file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Lines of a revocation list.
pub const REVOCATIONS_MAX: usize = 65_536;
