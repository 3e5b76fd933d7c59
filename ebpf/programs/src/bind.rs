//! bind(): the capture and peer ports are kedged's, also while it is dead.

use crate::account::{Subject, count, tell};
use crate::cgroups;
use crate::maps::Maps;
use crate::sock_addr::{ALLOW, Family, fail, is_tcp, named, netns_cookie, socket_cookie};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use kedge_abi::{Counter, EventKind};
use kedge_logic::Tables;
use kedge_logic::bind::is_kept;
use kedge_logic::errno::EADDRINUSE;

#[cgroup_sock_addr(bind4)]
pub fn kedge_bind4(ctx: SockAddrContext) -> i32 {
    bind(&ctx, Family::V4)
}

#[cgroup_sock_addr(bind6)]
pub fn kedge_bind6(ctx: SockAddrContext) -> i32 {
    bind(&ctx, Family::V6)
}

#[inline(always)]
fn bind(ctx: &SockAddrContext, family: Family) -> i32 {
    let Some(root) = Maps.root() else {
        return ALLOW;
    };
    if !is_tcp(ctx) {
        return ALLOW;
    }
    let wanted = named(ctx, family);
    let owner = cgroups::of_task();
    if !is_kept(root, netns_cookie(ctx), owner.as_ref(), wanted.port) {
        return ALLOW;
    }
    let subject = Subject {
        cgroup_id: owner.map_or(0, |owner| owner.id),
        socket_cookie: socket_cookie(ctx),
        destination: wanted,
        ..Subject::default()
    };
    count(Counter::BindRefused);
    tell(EventKind::BindRefused, EADDRINUSE, &subject);
    fail(EADDRINUSE)
}
