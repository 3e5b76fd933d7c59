//! What an application has set on its socket about dead peers. The daemon gives it to the legs
//! that the application does not see.

use aya_ebpf::helpers::bpf_getsockopt;
use aya_ebpf::programs::SockOpsContext;
use core::ffi::c_void;
use kedge_abi::Patience;

// include/uapi/asm-generic/socket.h and include/uapi/linux/tcp.h
const SOL_SOCKET: i32 = 1;
const SO_KEEPALIVE: i32 = 9;
const SOL_TCP: i32 = 6;
const TCP_KEEPIDLE: i32 = 4;
const TCP_KEEPINTVL: i32 = 5;
const TCP_KEEPCNT: i32 = 6;
const TCP_USER_TIMEOUT: i32 = 18;

/// Of a socket that is just connecting.
#[inline(always)]
pub fn of(ctx: &SockOpsContext) -> Patience {
    let mut patience = Patience {
        user_timeout_ms: option(ctx, SOL_TCP, TCP_USER_TIMEOUT),
        ..Patience::default()
    };
    if option(ctx, SOL_SOCKET, SO_KEEPALIVE) != 0 {
        patience.keepalive_idle_s = option(ctx, SOL_TCP, TCP_KEEPIDLE);
        patience.keepalive_interval_s = option(ctx, SOL_TCP, TCP_KEEPINTVL);
        patience.keepalive_probes = option(ctx, SOL_TCP, TCP_KEEPCNT);
    }
    patience
}

/// 0 where the helper does not know the option, which is so before Linux 6.1
/// (net/core/filter.c, sol_tcp_sockopt).
#[inline(always)]
fn option(ctx: &SockOpsContext, level: i32, name: i32) -> u32 {
    let mut value = 0_u32;
    let place = (&raw mut value).cast::<c_void>();
    // SAFETY: the context is this run's, and `place` has the four bytes that the length says.
    let failed = unsafe { bpf_getsockopt(ctx.ops.cast(), level as _, name as _, place, 4) };
    if failed == 0 { value } else { 0 }
}
