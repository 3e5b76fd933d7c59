//! System calls of kedged that neither std nor tokio offers: sockets with the options that every
//! leg of a flow has, and what the process says about itself to the kernel.
//!
//! Descriptors go in and come out as owned or borrowed std types only. The little that nix and
//! socket2 do not wrap is in [`ktls`], [`memory`], [`passing`], [`tcp_info`] and [`unix_peer`].

pub mod canary;
#[expect(
    unsafe_code,
    reason = "options and control messages that no crate wraps"
)]
pub mod ktls;
pub mod limits;
#[expect(unsafe_code, reason = "a call that no crate wraps")]
pub mod memory;
#[expect(unsafe_code, reason = "descriptors become owned by arriving")]
pub mod passing;
pub mod patience;
pub mod pipe;
pub mod process;
pub mod socket;
#[expect(
    unsafe_code,
    reason = "a structure of which nix has the beginning only"
)]
pub mod tcp_info;
pub mod tls_stat;
#[expect(unsafe_code, reason = "an option that no crate wraps")]
pub mod unix_peer;
