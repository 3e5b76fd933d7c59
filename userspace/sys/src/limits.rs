//! Time-outs that the kernel keeps for us, the same on all three legs of a flow.

use std::time::Duration;

/// Idle time after which the kernel asks whether the other side is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Time between two such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Unanswered questions after which a connection without a user time-out is dead: 25 s after the last
/// byte. With ours it ends by that.
pub const KEEPALIVE_PROBES: u32 = 3;
/// Time after which bytes that nobody acknowledges end the connection (TCP_USER_TIMEOUT,
/// RFC 5482).
pub const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that a listener holds before accept(); the kernel caps it at somaxconn.
pub const BACKLOG: i32 = 4_096;
