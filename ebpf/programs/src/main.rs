//! kedge's eBPF programs: they read their context, call kedge-logic, and act.
//!
//! ```text
//! connect4/6      decide; rewrite to a slot or fail; file what was asked with the socket
//! sock_ops        before the SYN: file tuples; established: give the server its true client;
//!                 closed: take back what nobody took; say whose SYN had no answer
//! sock_release    say whose SYN could not even leave
//! getpeername4/6  show the client what it asked for, and the server its true client; count whom
//!                 the daemon has accepted out of its queue
//! bind4/6         keep the capture and peer ports for kedged
//! cgroup_skb      guard `require` workloads and kedged itself; hold who has his share of a queue
//! ```

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod account;
mod bind;
mod cgroups;
mod connect;
mod guard;
mod maps;
mod patience;
mod peername;
mod pending;
mod queue;
mod released;
mod repeat;
mod sock_addr;
mod sockets;
mod storage;
mod tally;

/// Programs do not panic; the verifier would refuse one that could.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for programs under a licence that is compatible with the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
