//! No part of kedge: a stand-in for a socket load balancer such as Cilium's, which tests put beside
//! kedge's programs. connect4 sends whoever asks for a service to a pod, and getpeername4 shows the
//! service where the pod would be shown. Both addresses are those of the tests' lab.

#![no_std]
#![no_main]

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;

const ALLOW: i32 = 1;

type End = ([u8; 4], u16);

const SERVICE: End = ([10, 97, 0, 1], 80);
const POD: End = ([10, 244, 2, 50], 7_000);

#[cgroup_sock_addr(connect4)]
pub fn lb_connect4(ctx: SockAddrContext) -> i32 {
    rename(ctx.sock_addr, SERVICE, POD)
}

#[cgroup_sock_addr(getpeername4)]
pub fn lb_peername4(ctx: SockAddrContext) -> i32 {
    rename(ctx.sock_addr, POD, SERVICE)
}

#[inline(always)]
fn rename(named: *mut bpf_sock_addr, from: End, to: End) -> i32 {
    let word = |end: End| u32::from_ne_bytes(end.0);
    let port = |end: End| u32::from(end.1.to_be());
    // SAFETY: `named` is the context of this run; IPv4 hooks may read and write both fields, each
    // as a whole word.
    unsafe {
        let (ip, at) = (&raw mut (*named).user_ip4, &raw mut (*named).user_port);
        if ip.read_volatile() == word(from) && at.read_volatile() == port(from) {
            ip.write_volatile(word(to));
            at.write_volatile(port(to));
        }
    }
    ALLOW
}

/// Some kernels ask for it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Programs do not panic; the verifier would refuse one that could.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
