//! The errors that connect() and bind() fail with, and what events say of a connection.

/// kedged's own cgroup wanted to go where it must not.
pub const EPERM: u16 = 1;
/// A map has no room for another connection.
pub const ENOMEM: u16 = 12;
/// The port is kept for kedged.
pub const EADDRINUSE: u16 = 98;
/// A workload has too many connections under way: as if its ports had run out.
pub const EADDRNOTAVAIL: u16 = 99;
/// No worker of the dataplane lives: as if nobody listened.
pub const ECONNREFUSED: u16 = 111;
/// Nobody answers.
pub const ETIMEDOUT: u16 = 110;
