//! What the kernel counts of its TLS (Documentation/networking/tls.rst, "Statistics").

use std::collections::BTreeMap;
use std::fs;

/// The counters of this network namespace, by the kernel's own names; none where the kernel has no
/// TLS. Those that begin with `TlsCurr` say how many there are now.
#[must_use]
pub fn tls_stat() -> BTreeMap<String, u64> {
    // A thread's own view: a process may have threads in several namespaces.
    parse(&fs::read_to_string("/proc/thread-self/net/tls_stat").unwrap_or_default())
}

fn parse(text: &str) -> BTreeMap<String, u64> {
    let counter = |line: &str| {
        let (name, count) = line.split_once(char::is_whitespace)?;
        Some((name.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(counter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_counter_by_the_kernels_name() {
        let read = parse("TlsCurrTxSw                     \t2\nTlsTxSw\t17\n");
        let wanted = [("TlsCurrTxSw".to_owned(), 2), ("TlsTxSw".to_owned(), 17)];
        assert_eq!(read, wanted.into());
    }
}
