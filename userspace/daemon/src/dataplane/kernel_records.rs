//! Which flows' records the kernel seals and opens: what was asked for, and what this kernel was
//! seen to do well.

use crate::config::RecordsMode;
use crate::dataplane::flow::Records;
use kedge_model::Suite;
use kedge_sys::canary::Canary;

/// The suites whose records the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelRecords(Vec<Suite>);

/// Without these a flow cannot end as it should, or its key cannot outlive its budget.
const NEEDED: [&str; 3] = ["kTLS", "kTLS: control records", "kTLS: key update"];

const SUITES: [(&str, Suite); 3] = [
    ("kTLS: AES-128-GCM", Suite::Aes128Gcm),
    ("kTLS: AES-256-GCM", Suite::Aes256Gcm),
    ("kTLS: ChaCha20-Poly1305", Suite::ChaCha20Poly1305),
];

impl KernelRecords {
    /// By what the canaries have shown; and for each thing that was asked for in vain, why.
    pub fn choose(mode: RecordsMode, canaries: &[Canary]) -> (Self, Vec<String>) {
        if mode == RecordsMode::Userspace {
            return (Self::default(), Vec::new());
        }
        let silent = canaries.iter().filter(|canary| !canary.works);
        let reasons: Vec<_> = silent
            .clone()
            .map(|canary| format!("{}: {}", canary.name, canary.reason))
            .collect();
        let is_silent = |name: &str| silent.clone().any(|canary| canary.name == name);
        if NEEDED.into_iter().any(is_silent) {
            return (Self::default(), reasons);
        }
        let suites = SUITES.into_iter().filter(|(name, _)| !is_silent(name));
        (Self(suites.map(|(_, suite)| suite).collect()), reasons)
    }

    #[must_use]
    pub fn suites(&self) -> &[Suite] {
        &self.0
    }

    pub fn of(&self, suite: Suite) -> Records {
        match self.0.contains(&suite) {
            true => Records::Kernel { attached: false },
            false => Records::Userspace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canaries(silent: &[&str]) -> Vec<Canary> {
        let suites = SUITES.map(|(name, _)| name);
        let names = NEEDED.into_iter().chain(suites);
        let canary = |name| Canary {
            name,
            works: !silent.contains(&name),
            reason: "seen".to_owned(),
        };
        names.map(canary).collect()
    }

    fn chosen(silent: &[&str]) -> Vec<Suite> {
        let (kernel, reasons) = KernelRecords::choose(RecordsMode::Kernel, &canaries(silent));
        assert_eq!(reasons.len(), silent.len());
        kernel.0
    }

    #[test]
    fn the_kernel_gets_the_suites_that_it_does_well_and_nothing_without_what_all_need() {
        assert_eq!(chosen(&[]), SUITES.map(|(_, suite)| suite));
        let without_chacha = chosen(&["kTLS: ChaCha20-Poly1305"]);
        assert_eq!(without_chacha, [Suite::Aes128Gcm, Suite::Aes256Gcm]);
        for needed in NEEDED {
            assert!(chosen(&[needed]).is_empty(), "{needed}");
        }
    }

    #[test]
    fn nothing_is_given_to_the_kernel_unasked() {
        let (kernel, reasons) = KernelRecords::choose(RecordsMode::Userspace, &canaries(&[]));
        assert_eq!(kernel.of(Suite::Aes256Gcm), Records::Userspace);
        assert!(reasons.is_empty());
    }
}
