//! getpeername(), accept() and SO_PEERNAME: each side sees whom it means, not the daemon.

use crate::maps::{CLIENT, ORIGINAL};
use crate::sock_addr::{ALLOW, Family, rename};
use crate::{queue, storage};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use kedge_abi::original;

#[cgroup_sock_addr(getpeername4)]
pub fn kedge_peername4(ctx: SockAddrContext) -> i32 {
    peername(&ctx, Family::V4)
}

#[cgroup_sock_addr(getpeername6)]
pub fn kedge_peername6(ctx: SockAddrContext) -> i32 {
    peername(&ctx, Family::V6)
}

#[inline(always)]
fn peername(ctx: &SockAddrContext, family: Family) -> i32 {
    // SAFETY: the context of this run is live, and its last field is the socket in every hook.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if let Some(original) = storage::of(&ORIGINAL, socket) {
        if original::is_captured(original.state) {
            rename(ctx, family, &original.asked);
        }
    } else if let Some(client) = storage::of(&CLIENT, socket) {
        if client.client.port != 0 {
            rename(ctx, family, &client.client);
        }
    } else {
        queue::end(socket);
    }
    ALLOW
}
