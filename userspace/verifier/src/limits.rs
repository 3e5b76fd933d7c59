//! Every bound of the Verifier, with its unit.

use std::time::Duration;

/// Connections at once; each carries one request.
pub const CONNECTIONS_MAX: usize = 256;
/// How long one may take from its first byte to the end of its answer.
pub const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// How long a nonce may be answered.
pub const NONCE_TIME: Duration = Duration::from_secs(60);
/// How often the files that the configuration names are looked at.
pub const FILES_POLL: Duration = Duration::from_secs(1);
/// AKs that may be revoked.
pub const REVOKED_MAX: usize = 65_536;
