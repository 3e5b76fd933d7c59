//! Shapes: the ways in which applications use a connection, each played by a client and a server
//! that check every byte and every end. A stream is good only if both ends say so.
//!
//! ```text
//!   script  what each side does: send, receive, end, reset, and what it must see
//!   stream  a direction's bytes: nonce, then a pattern in which every position is known
//!   engine  the system calls behind it: blocking, epoll, io_uring, or an inherited descriptor
//! ```

mod client;
mod engine;
mod play;
mod script;
mod server;
mod stream;

pub use client::{Request, run};
pub use engine::Engine;
pub use server::{report, serve, serve_inherited};
