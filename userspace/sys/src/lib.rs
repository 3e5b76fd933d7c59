//! System calls of kedged that neither std nor tokio offers: sockets with the options that every
//! leg of a flow has, and what the process says about itself to the kernel.
//!
//! Descriptors go in and come out as owned or borrowed std types only. No `unsafe` so far: nix
//! and socket2 wrap all that is needed.

#![forbid(unsafe_code)]

pub mod limits;
pub mod process;
pub mod socket;
