//! Capture: kedge's eBPF programs on their hooks, and the tables that feed them.
//!
//! ```text
//!  directory, policy ──▶ replace_verdicts ─┐              ┌─ connect()   captured, passed, refused
//!  cgroup tree ────────▶ replace_cgroups ──┤   pinned     ├─ SYN         claim filed by tuple
//!  worker loops ───────▶ Beats::beat ──────┤    maps      ├─ established true client to the server
//!  what was refused ───▶ Refusals::file ───┤              │              claim to the daemon
//!  accept() ───────────▶ Claims::of ───────┤              ├─ getpeername what each side may see
//!  delivery ───────────▶ file_delivery ────┘              └─ packets     guarded
//! ```
//!
//! [`Capture::load`] loads the object file with tables of its own, and once these are full,
//! [`Capture::attach`] takes the hooks over in place; [`off`] undoes everything. This is the only crate that knows both the ABI and the loader.

#![allow(
    unsafe_code,
    reason = "bpf(2) and one socket option; each with its SAFETY comment"
)]

mod bpf;
mod capture;
mod claims;
mod config;
mod error;
mod events;
mod features;
mod inspect;
mod load;
mod lock;
mod netns;
mod pins;
mod prefixes;
mod queues;
mod refusals;
mod table;
mod verdicts;

pub use capture::{Beats, Capture, Cgroup, CgroupKind, now_ns};
pub use claims::{Claim, Claims, Keepalive, Patience};
pub use config::{CaptureConfig, probe_ends};
pub use error::{CaptureError, ConfigError};
pub use events::{CaptureEvent, Counters, EventReader};
pub use features::{Feature, probe_features};
pub use inspect::{Attached, Hook, Serving, attached, captured_cgroups, hooks, serving};
pub use kedge_abi::program::ALL as PROGRAMS;
pub use kedge_abi::{Counter, EventKind};
pub use lock::{ServiceLock, StartLock};
pub use netns::own_cookie as netns_cookie;
pub use pins::{cgroup_id, off};
pub use refusals::{Refusal, Refusals};
pub use verdicts::{LocalPod, Rule, Verdict, Verdicts};
