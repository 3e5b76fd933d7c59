//! Socket options that nix does not have, and what is read out of TCP_INFO.

use anyhow::{Context, Result};
use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};
use serde::Serialize;
use std::os::fd::AsFd;

/// `TCP_IS_MPTCP` of linux/tcp.h.
const TCP_IS_MPTCP: i32 = 43;
/// `TCPI_OPT_SYN_DATA` of linux/tcp.h: the SYN's data was acknowledged.
const TCPI_OPT_SYN_DATA: u8 = 32;

sockopt_impl!(
    Info,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);
sockopt_impl!(IsMptcp, GetOnly, libc::IPPROTO_TCP, TCP_IS_MPTCP, u32);

/// What TCP_INFO says about a connection's way.
#[derive(Serialize)]
pub struct Way {
    /// Whether the data of the SYN was taken.
    pub syn_data: bool,
    pub bytes_acked: u64,
    pub min_rtt_us: u32,
}

pub fn way(socket: &impl AsFd) -> Result<Way> {
    let info = getsockopt(socket, Info).context("TCP_INFO")?;
    Ok(Way {
        syn_data: info.tcpi_options & TCPI_OPT_SYN_DATA != 0,
        bytes_acked: info.tcpi_bytes_acked,
        min_rtt_us: info.tcpi_min_rtt,
    })
}

/// Whether MPTCP is spoken on the wire: a socket of either protocol may have come to plain TCP.
pub fn is_mptcp(socket: &impl AsFd) -> Result<bool> {
    Ok(getsockopt(socket, IsMptcp).context("TCP_IS_MPTCP")? != 0)
}
