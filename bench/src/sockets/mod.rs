//! Sockets that are used in unusual ways: one connection at a time, everything said about it that
//! either application can see, so that a test compares it with what direct TCP shows.
//!
//! ```text
//!   client     makes a socket, sets what was asked, connects, says three things, is told the rest
//!   server     takes what comes to its end, and tells the client and its own standard output
//!   datagram   one question and one answer over UDP
//!   option     socket options that nix does not have
//! ```

mod client;
mod datagram;
mod option;
mod server;

pub use client::{Request, run};
pub use datagram::{ask as ask_datagram, serve as serve_datagrams};
pub use server::{Service, serve};

/// What a client says: the byte in the middle may be urgent.
const BEFORE: &[u8] = b"before ";
const MIDDLE: &[u8] = b"!";
const AFTER: &[u8] = b" after";
