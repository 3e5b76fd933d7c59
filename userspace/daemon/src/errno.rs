//! The errors that connect() of an application may fail with (errno(3)), chosen as direct TCP
//! would fail.

/// Nobody listens there.
pub const ECONNREFUSED: u16 = 111;
/// No answer, or forbidden on the way: what ICMP "host unreachable" and "administratively
/// prohibited" become (net/ipv4/icmp.c, `icmp_err_convert`).
pub const EHOSTUNREACH: u16 = 113;
