//! How busy this machine's processors are, whoever it is for.

use anyhow::{Context, Result};
use std::fs;

/// USER_HZ, on every architecture that kedge runs on.
pub const PER_SECOND: u64 = 100;

/// For how long all processors together have done something since the machine's start.
pub fn ticks() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    of(&text).context("/proc/stat begins with something else than its processors")
}

/// The first line, proc_stat(5): user, nice, system, idle, iowait, irq, softirq.
fn of(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map(|word| word.parse().ok())
        .collect::<Option<_>>()?;
    let [user, nice, system, _, _, irq, softirq] = ticks.first_chunk()?;
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_not_busy() {
        let stat = "cpu  1 20 300 9 9 4000 50000 9 9 9\ncpu0 7 7 7 7 7 7 7\n";
        assert_eq!(of(stat), Some(54_321));
        assert_eq!(of("cpu0 1 2 3 4 5 6 7"), None);
    }
}
