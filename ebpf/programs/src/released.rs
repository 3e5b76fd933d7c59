//! sock_release: the last look at a socket that was captured and never sent anything.

use crate::account::{Subject, count, tell};
use crate::maps::ORIGINAL;
use crate::storage;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use kedge_abi::{Counter, EventKind, original};

/// Lets the socket go; the kernel takes no other answer here.
const DONE: i32 = 1;

#[cgroup_sock(sock_release)]
pub fn kedge_released(ctx: SockContext) -> i32 {
    let Some(original) = storage::of(&ORIGINAL, ctx.sock) else {
        return DONE;
    };
    if original.state == original::CAPTURED {
        count(Counter::Unsent);
        let subject = Subject {
            cgroup_id: original.cgroup_id,
            destination: original.asked,
            ..Subject::default()
        };
        tell(EventKind::Unsent, 0, &subject);
    }
    DONE
}
