//! What the kernel does of the records of flows, and what it has counted of its TLS since this daemon
//! began: in the daemon's network namespace, whoever used it.

use kedge_api::RecordsStatus;
use kedge_sys::tls_stat::tls_stat;
use std::collections::BTreeMap;

pub const PREFIX: &str = "kernel_tls.";
/// Of those that say how many there are now.
pub const NOW: &str = "kernel_tls.TlsCurr";

#[derive(Clone, Default)]
pub struct KernelTls {
    pub records: RecordsStatus,
    before: BTreeMap<String, u64>,
}

impl KernelTls {
    pub fn begin(records: RecordsStatus) -> Self {
        Self {
            records,
            before: tls_stat(),
        }
    }

    /// By the kernel's names; empty where it has no TLS.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.since(tls_stat())
    }

    fn since(&self, counters: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let since = |(name, count): (String, u64)| {
            let before = self.before.get(&name).copied().unwrap_or_default();
            let name = format!("{PREFIX}{name}");
            let is_now = name.starts_with(NOW);
            (
                name,
                if is_now {
                    count
                } else {
                    count.saturating_sub(before)
                },
            )
        };
        counters.into_iter().map(since).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_is_left_out_of_all_but_the_present_numbers() {
        let counters = |count| {
            ["TlsCurrTxSw", "TlsTxSw"]
                .map(|name| (name.to_owned(), count))
                .into()
        };
        let since = KernelTls {
            records: RecordsStatus::default(),
            before: counters(5),
        }
        .since(counters(7));
        let wanted = [("kernel_tls.TlsCurrTxSw", 7), ("kernel_tls.TlsTxSw", 2)];
        assert_eq!(
            since,
            wanted.map(|(name, count)| (name.to_owned(), count)).into()
        );
    }
}
