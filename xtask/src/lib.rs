//! Everything that a developer or CI does with kedge, as verbs of `cargo xtask`. It is a library
//! too, so that the scenarios in `tests/` use the same lab and the same wire oracle as the demo
//! and the bench.

#![forbid(unsafe_code)]

pub mod artifacts;
pub mod bench;
pub mod bpf;
pub mod demo;
pub mod endless;
pub mod fuzz;
mod in_turn;
pub mod lab;
pub mod libtest;
pub mod setup;
pub mod shapes;
pub mod shell;
pub mod stage;
pub mod steady;
pub mod strangers;
pub mod test_programs;
pub mod tiers;
pub mod vm;
pub mod waiting;
pub mod wire;
