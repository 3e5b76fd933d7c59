//! What the daemons themselves use: processor time to the nanosecond, and resident memory.

use crate::lab::Lab;
use crate::lab::topology::NODES;
use anyhow::{Context, Result};
use std::fs;

/// Processor time of both daemons, in seconds: the sum over their threads, from the scheduler.
pub fn cpu_seconds(lab: &Lab) -> Result<f64> {
    let mut nanoseconds = 0;
    for node in NODES {
        let tasks = format!("/proc/{}/task", lab.daemon(node)?.pid);
        for task in fs::read_dir(&tasks)
            .with_context(|| format!("read {tasks}"))?
            .flatten()
        {
            let path = task.path().join("schedstat");
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            nanoseconds += on_cpu(&text).with_context(|| format!("parse {}", path.display()))?;
        }
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Resident set size of one daemon, the mean of both, in KiB. Not the proportional one: two
/// daemons share their pages here, and never on machines of their own.
pub fn memory_kib(lab: &Lab) -> Result<f64> {
    let mut sum = 0;
    for node in NODES {
        let path = format!("/proc/{}/smaps_rollup", lab.daemon(node)?.pid);
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        sum += rss_kib(&text).with_context(|| format!("parse {path}"))?;
    }
    Ok(sum as f64 / NODES.len() as f64)
}

/// The first of schedstat's three numbers.
fn on_cpu(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

fn rss_kib(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_read() {
        assert_eq!(on_cpu("1200300 5 7\n"), Some(1_200_300));
        let rollup = "Rss:   900 kB\nPss:                 812 kB\nPss_Dirty: 4 kB\n";
        assert_eq!(rss_kib(rollup), Some(900));
    }
}
