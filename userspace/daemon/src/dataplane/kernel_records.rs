//! Which flows' records the kernel seals and opens: what the node and its policy ask for, what this
//! kernel was seen to do well, and what each way was measured to cost.

use crate::dataplane::calibration::Costs;
use crate::dataplane::flow::Records;
use crate::limits::{BULK_BYTES, WORTH_A_CHANGE};
use kedge_model::{RecordsMode, Suite};
use kedge_record::Rekey;
use kedge_sys::canary::Canary;
use std::io;

/// For each suite that was asked for, in that order; and what happens at the end of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelRecords {
    choices: Vec<Choice>,
    /// Whether this kernel takes the next key where the last one was.
    in_place: bool,
    /// See [`pipes_hold_several`].
    pipes_hold_several: bool,
}

/// Who seals and opens the records of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub suite: Suite,
    /// Where no policy says otherwise.
    pub records: Records,
    pub reason: String,
    /// Whether the kernel was asked for in vain.
    pub missing: bool,
    /// For those for whom a policy asks for the kernel, or for the cheaper of the two.
    kernel: Records,
    cheaper: Records,
}

/// Without these a flow cannot end as it should.
const NEEDED: [&str; 2] = ["kTLS", "kTLS: control records"];
/// Without this a flow continues on another carrier when its key ends.
const KEY_UPDATE: &str = "kTLS: key update";
/// Without this each record has a pipe to itself.
const SHORT_PIPE: &str = "kTLS: splice into a short pipe";

impl KernelRecords {
    pub fn choose(
        mode: RecordsMode,
        suites: &[Suite],
        canaries: &[Canary],
        calibrate: impl Fn(Suite) -> io::Result<Costs>,
    ) -> Self {
        let choice = |suite: &Suite| Choice::new(mode, *suite, canaries, &calibrate);
        Self {
            choices: suites.iter().map(choice).collect(),
            in_place: works(canaries, KEY_UPDATE),
            pipes_hold_several: pipes_hold_several(canaries),
        }
    }

    /// What our hellos ask for: continuation takes descriptors from all flows, so only where records
    /// go to a kernel that needs it without a policy's asking.
    pub fn rekey(&self) -> Rekey {
        let by_kernel = |choice: &Choice| choice.records != Records::Userspace;
        match self.choices.iter().any(by_kernel) && !self.in_place {
            true => Rekey::Continue,
            false => Rekey::InPlace,
        }
    }

    /// Those of a flow whose link has agreed on `agreed`, and for whose workload the policy has
    /// `asked`: a key that cannot be updated in place must not go to the kernel unless both ends go
    /// on on another carrier.
    pub fn of(&self, suite: Suite, agreed: Rekey, asked: Option<RecordsMode>) -> Records {
        if !self.in_place && agreed == Rekey::InPlace {
            return Records::Userspace;
        }
        let choice = self.choices.iter().find(|choice| choice.suite == suite);
        choice.map_or(Records::Userspace, |choice| match asked {
            None => choice.records,
            Some(RecordsMode::Userspace) => Records::Userspace,
            Some(RecordsMode::Kernel) => choice.kernel,
            Some(RecordsMode::Auto) => choice.cheaper,
        })
    }

    pub fn pipes_hold_several(&self) -> bool {
        self.pipes_hold_several
    }

    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }
}

impl Choice {
    /// A node whose mode is userspace has not tried its kernel, and no policy gets it either; one
    /// whose mode is kernel has measured nothing, and to its policy the kernel is the cheaper.
    fn new(
        mode: RecordsMode,
        suite: Suite,
        canaries: &[Canary],
        calibrate: impl Fn(Suite) -> io::Result<Costs>,
    ) -> Self {
        let configured = "as configured".to_owned();
        if mode == RecordsMode::Userspace {
            return Self::userspace(suite, configured, false);
        }
        if let Some(silent) = why_not(suite, canaries) {
            return Self::userspace(suite, silent, mode == RecordsMode::Kernel);
        }
        let (records, reason) = match mode {
            RecordsMode::Kernel => (Records::AT_ONCE, configured),
            _ => by_costs(calibrate(suite)),
        };
        Self {
            suite,
            records,
            reason,
            missing: false,
            kernel: Records::AT_ONCE,
            cheaper: records,
        }
    }

    fn userspace(suite: Suite, reason: String, missing: bool) -> Self {
        Self {
            suite,
            records: Records::Userspace,
            reason,
            missing,
            kernel: Records::Userspace,
            cheaper: Records::Userspace,
        }
    }
}

/// Whether records may follow one another into a pipe, though it may have room for a part of one only.
pub fn pipes_hold_several(canaries: &[Canary]) -> bool {
    works(canaries, SHORT_PIPE)
}

fn works(canaries: &[Canary], name: &str) -> bool {
    let canary = canaries.iter().find(|canary| canary.name == name);
    canary.is_some_and(|canary| canary.works)
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
        Records::Kernel { after: BULK_BYTES }
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
        let optional = [KEY_UPDATE, SHORT_PIPE];
        let names = NEEDED.into_iter().chain(optional).chain(OF_SUITES);
        names.map(canary).collect()
    }

    fn chosen(mode: RecordsMode, silent: &str, bulk: u32, small: u32) -> [Records; 3] {
        let calibrate = |_| Ok(Costs { bulk, small });
        let chosen = KernelRecords::choose(mode, &Suite::ALL, &canaries(silent), calibrate);
        Suite::ALL.map(|suite| chosen.of(suite, chosen.rekey(), None))
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
            let silent = canaries("kTLS: control records");
            let chosen = KernelRecords::choose(mode, &[Suite::Aes256Gcm], &silent, calibrate);
            let [choice] = chosen.choices() else {
                panic!("one suite, one choice")
            };
            assert_eq!(choice.missing, missing);
            assert_eq!(choice.reason, "kTLS: control records: seen");
        }
    }

    #[test]
    fn a_kernel_without_key_updates_gets_flows_that_continue_and_no_others() {
        let kernel = |mode, silent| {
            let calibrate = |_| {
                Ok(Costs {
                    bulk: 50,
                    small: 50,
                })
            };
            KernelRecords::choose(mode, &Suite::ALL, &canaries(silent), calibrate)
        };
        let suite = Suite::Aes128Gcm;
        for mode in [RecordsMode::Kernel, RecordsMode::Auto] {
            let (old, new) = (kernel(mode, KEY_UPDATE), kernel(mode, "none"));
            let asked = (old.rekey(), new.rekey());
            assert_eq!(asked, (Rekey::Continue, Rekey::InPlace));
            assert_eq!(old.of(suite, Rekey::Continue, None), Records::AT_ONCE);
            assert_eq!(old.of(suite, Rekey::InPlace, None), Records::Userspace);
            assert_eq!(new.of(suite, Rekey::InPlace, None), Records::AT_ONCE);
            assert_eq!(new.of(suite, Rekey::Continue, None), Records::AT_ONCE);
        }
        let unasked = kernel(RecordsMode::Userspace, KEY_UPDATE);
        assert_eq!(unasked.rekey(), Rekey::InPlace);
    }

    #[test]
    fn where_the_kernel_is_dearer_and_changes_no_keys_nothing_goes_there_and_no_flow_continues() {
        let dear = |_| {
            Ok(Costs {
                bulk: 120,
                small: 120,
            })
        };
        let silent = canaries(KEY_UPDATE);
        let chosen = KernelRecords::choose(RecordsMode::Auto, &Suite::ALL, &silent, dear);
        assert_eq!(chosen.rekey(), Rekey::InPlace);
        let asked = Some(RecordsMode::Kernel);
        let of = |agreed| chosen.of(Suite::Aes256Gcm, agreed, asked);
        assert_eq!(of(Rekey::InPlace), Records::Userspace);
        assert_eq!(of(Rekey::Continue), Records::AT_ONCE);
    }

    #[test]
    fn nothing_is_given_to_the_kernel_unasked() {
        assert_eq!(
            chosen(RecordsMode::Userspace, "none", 1, 1),
            [Records::Userspace; 3]
        );
    }

    #[test]
    fn a_policy_decides_for_its_workload_within_what_the_node_has_tried() {
        let suite = Suite::Aes256Gcm;
        let asked = |mode, silent, asked| {
            let dear = |_| {
                Ok(Costs {
                    bulk: 120,
                    small: 120,
                })
            };
            let chosen = KernelRecords::choose(mode, &[suite], &canaries(silent), dear);
            chosen.of(suite, chosen.rekey(), asked)
        };
        let [kernel, ours] = [Records::AT_ONCE, Records::Userspace];
        for (mode, by_node) in [(RecordsMode::Kernel, kernel), (RecordsMode::Auto, ours)] {
            for (policy, expected) in [
                (None, by_node),
                (Some(RecordsMode::Kernel), kernel),
                (Some(RecordsMode::Auto), by_node),
                (Some(RecordsMode::Userspace), ours),
            ] {
                assert_eq!(asked(mode, "none", policy), expected, "{mode:?} {policy:?}");
            }
            assert_eq!(asked(mode, "kTLS", Some(RecordsMode::Kernel)), ours);
        }
        let in_vain = asked(RecordsMode::Userspace, "none", Some(RecordsMode::Kernel));
        assert_eq!(in_vain, ours);
    }

    #[test]
    fn flows_go_to_the_kernel_when_it_pays_and_bulk_transfers_when_only_they_do() {
        let auto = |bulk, small| chosen(RecordsMode::Auto, "none", bulk, small)[0];
        assert_eq!(auto(80, 90), Records::AT_ONCE);
        assert_eq!(auto(100, 90), Records::AT_ONCE);
        assert_eq!(auto(90, 109), Records::Kernel { after: BULK_BYTES });
        assert_eq!(auto(91, 91), Records::Userspace);
        assert_eq!(
            auto(101, 50),
            Records::Userspace,
            "it may become a bulk transfer"
        );
    }

    #[test]
    fn a_pipe_holds_several_records_only_where_a_short_one_was_seen_to_lose_nothing() {
        let several = |mode, canaries: &[_]| {
            let calibrate = |_| Ok(Costs { bulk: 1, small: 1 });
            KernelRecords::choose(mode, &Suite::ALL, canaries, calibrate).pipes_hold_several()
        };
        for mode in [RecordsMode::Kernel, RecordsMode::Auto] {
            assert!(several(mode, &canaries("none")));
            assert!(!several(mode, &canaries(SHORT_PIPE)));
            assert!(!several(mode, &[]), "a kernel that was not tried");
        }
    }

    #[test]
    fn what_cannot_be_measured_stays_in_userspace() {
        let fails = |_| Err(io::Error::other("it stands still"));
        let all = canaries("none");
        let chosen = KernelRecords::choose(RecordsMode::Auto, &Suite::ALL, &all, fails);
        let records = chosen.of(Suite::Aes256Gcm, Rekey::InPlace, None);
        assert_eq!(records, Records::Userspace);
        assert_eq!(chosen.choices()[0].reason, "calibrate: it stands still");
    }
}
