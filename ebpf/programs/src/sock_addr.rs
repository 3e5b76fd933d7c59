//! Reading and writing `struct bpf_sock_addr`, word by word and volatile: the verifier takes
//! accesses of one field at a time only, and the compiler would merge them.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::programs::SockAddrContext;
use kedge_abi::{Address, Endpoint};

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;

/// Lets the system call go on.
pub const ALLOW: i32 = 1;
/// Fails it.
const FAIL: i32 = 0;

/// Which of the two forms the hook's address has.
#[derive(Clone, Copy)]
pub enum Family {
    V4,
    V6,
}

#[inline(always)]
pub fn is_tcp(ctx: &SockAddrContext) -> bool {
    let raw = ctx.sock_addr;
    // SAFETY: `raw` is the context of this run; both fields may be read.
    let (kind, protocol) = unsafe {
        (
            read(&raw const (*raw).type_),
            read(&raw const (*raw).protocol),
        )
    };
    kind == SOCK_STREAM && protocol == IPPROTO_TCP
}

/// The address that the system call names.
#[inline(always)]
pub fn named(ctx: &SockAddrContext, family: Family) -> Endpoint {
    let raw = ctx.sock_addr;
    let address = match family {
        // SAFETY: `raw` is the context of this run; an IPv4 hook may read `user_ip4`.
        Family::V4 => Address::v4(unsafe { read(&raw const (*raw).user_ip4) }),
        Family::V6 => Address::v6(user_ip6(raw)),
    };
    // SAFETY: every hook of this context may read `user_port`.
    let port_be = unsafe { read(&raw const (*raw).user_port) } as u16;
    Endpoint::new(address, u16::from_be(port_be))
}

#[inline(always)]
fn user_ip6(raw: *mut bpf_sock_addr) -> [u32; 4] {
    // SAFETY: `raw` is the context of this run; an IPv6 hook may read `user_ip6`.
    unsafe {
        [
            read(&raw const (*raw).user_ip6[0]),
            read(&raw const (*raw).user_ip6[1]),
            read(&raw const (*raw).user_ip6[2]),
            read(&raw const (*raw).user_ip6[3]),
        ]
    }
}

/// Puts `end` in the place of the address that the system call names or answers. An IPv4 hook
/// cannot say an IPv6 address and leaves what is there.
#[inline(always)]
pub fn rename(ctx: &SockAddrContext, family: Family, end: &Endpoint) {
    let raw = ctx.sock_addr;
    match family {
        Family::V4 if !end.address.is_v4() => return,
        // SAFETY: `raw` is the context of this run; an IPv4 hook may write `user_ip4`.
        Family::V4 => unsafe {
            write(&raw mut (*raw).user_ip4, end.address.v4_word_be());
        },
        // SAFETY: as above, for `user_ip6` of an IPv6 hook.
        Family::V6 => unsafe {
            write(&raw mut (*raw).user_ip6[0], end.address.words_be[0]);
            write(&raw mut (*raw).user_ip6[1], end.address.words_be[1]);
            write(&raw mut (*raw).user_ip6[2], end.address.words_be[2]);
            write(&raw mut (*raw).user_ip6[3], end.address.words_be[3]);
        },
    }
    let port_be = u32::from((end.port as u16).to_be());
    // SAFETY: connect and getpeername hooks may write `user_port`, as a whole word.
    unsafe { write(&raw mut (*raw).user_port, port_be) };
}

/// Fails the system call with `errno`.
#[inline(always)]
pub fn fail(errno: u16) -> i32 {
    // The verifier of Linux 7.2 and later wants to see that it is one: at most 4095 (MAX_ERRNO).
    let errno = errno & 0xfff;
    // SAFETY: any negative errno may be set.
    unsafe { bpf_set_retval(-i32::from(errno)) };
    FAIL
}

#[inline(always)]
pub fn socket_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context of this run.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) }
}

#[inline(always)]
pub fn netns_cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the helper takes the context of this run.
    unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast()) }
}

/// # Safety
/// `field` is a field of the live context that this hook may read.
#[inline(always)]
unsafe fn read(field: *const u32) -> u32 {
    // SAFETY: the caller's.
    unsafe { field.read_volatile() }
}

/// # Safety
/// `field` is a field of the live context that this hook may write.
#[inline(always)]
unsafe fn write(field: *mut u32, value: u32) {
    // SAFETY: the caller's.
    unsafe { field.write_volatile(value) }
}
