//! Which flows' records the kernel seals and opens: what was asked for, what this kernel was seen
//! to do well, and what each way was measured to cost.

use crate::config::RecordsMode;
use crate::dataplane::calibration::Costs;
use crate::dataplane::flow::Records;
use crate::limits::{BULK_BYTES, WORTH_A_CHANGE};
use kedge_model::Suite;
use kedge_sys::canary::Canary;
use std::io;

/// For each suite that was asked for, in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelRecords(Vec<Choice>);

/// Who seals and opens the records of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub suite: Suite,
    pub records: Records,
    pub reason: String,
    /// Whether the kernel was asked for in vain.
    pub missing: bool,
}

/// Without these a flow cannot end as it should, or its key cannot outlive its budget.
const NEEDED: [&str; 3] = ["kTLS", "kTLS: control records", "kTLS: key update"];

impl KernelRecords {
    pub fn choose(
        mode: RecordsMode,
        suites: &[Suite],
        canaries: &[Canary],
        calibrate: impl Fn(Suite) -> io::Result<Costs>,
    ) -> Self {
        let choice = |suite: &Suite| {
            let silent = why_not(*suite, canaries);
            let missing = mode == RecordsMode::Kernel && silent.is_some();
            let (records, reason) = match (mode, silent) {
                (RecordsMode::Userspace, _) => (Records::Userspace, "as configured".to_owned()),
                (_, Some(silent)) => (Records::Userspace, silent),
                (RecordsMode::Kernel, None) => (Records::AT_ONCE, "as configured".to_owned()),
                (RecordsMode::Auto, None) => by_costs(calibrate(*suite)),
            };
            Choice {
                suite: *suite,
                records,
                reason,
                missing,
            }
        };
        Self(suites.iter().map(choice).collect())
    }

    pub fn of(&self, suite: Suite) -> Records {
        let choice = self.0.iter().find(|choice| choice.suite == suite);
        choice.map_or(Records::Userspace, |choice| choice.records)
    }

    pub fn choices(&self) -> &[Choice] {
        &self.0
    }
}

/// The first canary that the suite needs and that does not sing.
fn why_not(suite: Suite, canaries: &[Canary]) -> Option<String> {
    let of_suite = match suite {
        Suite::Aes128Gcm => "kTLS: AES-128-GCM",
        Suite::Aes256Gcm => "kTLS: AES-256-GCM",
        Suite::ChaCha20Poly1305 => "kTLS: ChaCha20-Poly1305",
    };
    let is_needed = |canary: &&Canary| NEEDED.contains(&canary.name) || canary.name == of_suite;
    let silent = canaries
        .iter()
        .filter(is_needed)
        .find(|canary| !canary.works)?;
    Some(format!("{}: {}", silent.name, silent.reason))
}

/// A change must be worth it, since noise is in every figure; and a flow cannot take its keys back
/// from the kernel, so that one which may still become a bulk transfer goes there only if it
/// loses nothing then.
fn by_costs(costs: io::Result<Costs>) -> (Records, String) {
    let costs = match costs {
        Ok(costs) => costs,
        Err(error) => return (Records::Userspace, format!("calibrate: {error}")),
    };
    let reason = format!(
        "the kernel takes {} % of our time in bulk, {} % for 1 KiB there and back",
        costs.bulk, costs.small
    );
    let records = if costs.small <= WORTH_A_CHANGE && costs.bulk <= 100 {
        Records::AT_ONCE
    } else if costs.bulk <= WORTH_A_CHANGE {
        Records::kernel_after(BULK_BYTES)
    } else {
        Records::Userspace
    };
    (records, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_SUITES: [&str; 3] = [
        "kTLS: AES-256-GCM",
        "kTLS: ChaCha20-Poly1305",
        "kTLS: AES-128-GCM",
    ];

    fn canaries(silent: &str) -> Vec<Canary> {
        let canary = |name| Canary {
            name,
            works: name != silent,
            reason: "seen".to_owned(),
        };
        NEEDED.into_iter().chain(OF_SUITES).map(canary).collect()
    }

    fn chosen(mode: RecordsMode, silent: &str, bulk: u32, small: u32) -> [Records; 3] {
        let calibrate = |_| Ok(Costs { bulk, small });
        let chosen = KernelRecords::choose(mode, &Suite::ALL, &canaries(silent), calibrate);
        Suite::ALL.map(|suite| chosen.of(suite))
    }

    #[test]
    fn the_kernel_gets_the_suites_that_it_does_well_and_nothing_without_what_all_need() {
        let [kernel, ours] = [Records::AT_ONCE, Records::Userspace];
        for mode in [RecordsMode::Kernel, RecordsMode::Auto] {
            assert_eq!(chosen(mode, "none", 50, 50), [kernel; 3]);
            let without_chacha = chosen(mode, "kTLS: ChaCha20-Poly1305", 50, 50);
            assert_eq!(without_chacha, [kernel, ours, kernel]);
            for needed in NEEDED {
                assert_eq!(chosen(mode, needed, 50, 50), [ours; 3], "{needed}");
            }
        }
    }

    #[test]
    fn what_was_asked_for_in_vain_is_marked_with_the_reason() {
        let calibrate = |_| Ok(Costs { bulk: 1, small: 1 });
        for (mode, missing) in [(RecordsMode::Kernel, true), (RecordsMode::Auto, false)] {
            let silent = canaries("kTLS: key update");
            let chosen = KernelRecords::choose(mode, &[Suite::Aes256Gcm], &silent, calibrate);
            let [choice] = chosen.choices() else {
                panic!("one suite, one choice")
            };
            assert_eq!(choice.missing, missing);
            assert_eq!(choice.reason, "kTLS: key update: seen");
        }
    }

    #[test]
    fn nothing_is_given_to_the_kernel_unasked() {
        assert_eq!(
            chosen(RecordsMode::Userspace, "none", 1, 1),
            [Records::Userspace; 3]
        );
    }

    #[test]
    fn flows_go_to_the_kernel_when_it_pays_and_bulk_transfers_when_only_they_do() {
        let auto = |bulk, small| chosen(RecordsMode::Auto, "none", bulk, small)[0];
        assert_eq!(auto(80, 90), Records::AT_ONCE);
        assert_eq!(auto(100, 90), Records::AT_ONCE);
        assert_eq!(auto(90, 109), Records::kernel_after(BULK_BYTES));
        assert_eq!(auto(91, 91), Records::Userspace);
        assert_eq!(
            auto(101, 50),
            Records::Userspace,
            "it may become a bulk transfer"
        );
    }

    #[test]
    fn what_cannot_be_measured_stays_in_userspace() {
        let fails = |_| Err(io::Error::other("it stands still"));
        let all = canaries("none");
        let chosen = KernelRecords::choose(RecordsMode::Auto, &Suite::ALL, &all, fails);
        assert_eq!(chosen.of(Suite::Aes256Gcm), Records::Userspace);
        assert_eq!(chosen.choices()[0].reason, "calibrate: it stands still");
    }
}
