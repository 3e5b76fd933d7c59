//! What a machine runs, in which order: test programs with their filters and variables, in lanes
//! beside each other, since they wait for each other's packets and clocks more often than they keep
//! two processors busy. The guest's init reads it as `/plan.json`.

use super::kernels::Kernel;
use super::tpm;
use crate::lab::topology::Node;
use crate::lab::tpm::MACHINES;
use crate::stage;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// One run of one test program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    lane: Lane,
    pub name: String,
    pub program: String,
    /// Names of tests, or parts of such; none: all tests.
    pub words: Vec<String>,
    pub variables: BTreeMap<String, String>,
}

/// Runs of a lane follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Lane {
    Crates,
    /// They share a lab.
    Lab,
}

/// Two nodes within the machine, and who seals their records.
struct Scenario {
    program: &'static str,
    /// `None`: it chooses itself.
    records: Option<&'static str>,
    suites: Suites,
    words: &'static [&'static str],
    /// Otherwise it is played on request only: under emulation it takes minutes.
    always: bool,
}

/// The suites in which a scenario is played, one after the other.
enum Suites {
    /// The one that daemons prefer.
    Preferred,
    /// That one and the kernel's second; all of them in full.
    Several,
}

const SUITES: [&str; 3] = ["aes-256-gcm", "chacha20-poly1305", "aes-128-gcm"];

/// How often things are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// As often as there is time for under emulation in every run: each shape four times by each of
    /// the pairs of engines that can play it, which are five for most; in the second suite, five
    /// times by one. On four kernels that makes a hundred.
    Light,
    /// As `--full` says: it takes hours.
    Full,
}

impl Extent {
    fn variables(self, suite: Option<&str>) -> &'static [(&'static str, &'static str)] {
        match (self, suite) {
            (Extent::Light, None) => &[("KEDGE_TIMES_PERCENT", "5")],
            (Extent::Light, Some(_)) => &[("KEDGE_TIMES_PERCENT", "7"), ("KEDGE_PAIRS", "1")],
            (Extent::Full, _) => &[("KEDGE_FULL", "1")],
        }
    }
}

/// The programs of `xtask/tests` that [`runs`], [`counting`] and [`half`] name.
pub const SCENARIO_PROGRAMS: [&str; 8] = [
    ATTESTED,
    "deaths",
    "first_light",
    "guard",
    INSTRUCTIONS,
    HALVES,
    "records",
    "shapes",
];

/// What [`counting`] runs.
pub const INSTRUCTIONS: &str = "instructions";

/// What [`half`] runs.
pub const HALVES: &str = "machines";

/// The scenario of two nodes with TPMs: one has the machine's, the other a swtpm within it.
pub const ATTESTED: &str = "attested";

/// Each wants a lab, a capture and nothing but kedge's own servers; none has a tight time in it,
/// since the clock of an emulated machine stutters.
const SCENARIOS: [Scenario; 7] = [
    Scenario {
        program: "records",
        records: None,
        suites: Suites::Preferred,
        words: &[],
        always: true,
    },
    Scenario {
        program: "first_light",
        records: Some("kernel"),
        suites: Suites::Preferred,
        words: &[
            "addresses::",
            "ends::",
            "a_workload_without_kedge_is_caught_by_the_same_oracle",
            "an_open_flow_that_a_new_policy_denies_is_reset_with_the_reason",
            "the_first_bytes_of_a_flow_leave_before_anything_comes_back",
        ],
        always: true,
    },
    Scenario {
        program: "guard",
        records: Some("kernel"),
        suites: Suites::Preferred,
        words: &[
            "a_dead_daemon_leaks_nothing_of_a_require_pod",
            "a_process_of_a_node_enters_no_require_pod_of_either_node",
            "raw_segments_of_a_require_pod_never_reach_the_wire",
        ],
        always: true,
    },
    Scenario {
        program: "shapes",
        records: Some("kernel"),
        suites: Suites::Several,
        words: &OVER_THE_WIRE,
        always: true,
    },
    Scenario {
        program: "shapes",
        records: Some("userspace"),
        suites: Suites::Preferred,
        words: &OVER_THE_WIRE,
        always: false,
    },
    Scenario {
        program: "deaths",
        records: Some("kernel"),
        suites: Suites::Preferred,
        words: &[],
        always: false,
    },
    Scenario {
        program: ATTESTED,
        records: None,
        suites: Suites::Preferred,
        words: &["tampered::"],
        always: false,
    },
];

/// Without the streams that stay on their node: these have no records.
const OVER_THE_WIRE: [&str; 2] = [
    "every_shape_is_exact_over_the_wire_with_every_kind_of_system_call",
    "sixty_four_mib_each_way_at_once_are_exact",
];

/// How many times as long as usual something may take there.
const PATIENCE: &str = "4";

/// The runs for a kernel: all `tests` and, where kedge can be loaded, the scenarios that are always
/// played, in full all of them. With `only`, those tests and scenarios that have one of its words in
/// their name; of `RUN:TEST`, no other test than that.
#[must_use]
pub fn runs(kernel: &Kernel, tests: &[&str], only: &[String], extent: Extent) -> Vec<Run> {
    let asked_for = !only.is_empty() || extent == Extent::Full;
    let scenarios = SCENARIOS
        .iter()
        .filter(|scenario| kernel.capture && (scenario.always || asked_for));
    let all = tests.iter().map(|name| test(name));
    let all = all.chain(scenarios.flat_map(|scenario| scenario.runs(kernel, extent)));
    match only {
        [] => all.collect(),
        _ => all.filter_map(|run| asked(run, only)).collect(),
    }
}

fn asked(mut run: Run, only: &[String]) -> Option<Run> {
    let mut words = only
        .iter()
        .map(|word| word.split_once(':').unwrap_or((word, "")));
    let (_, test) = words.find(|(name, _)| run.name.contains(name))?;
    if !test.is_empty() {
        run.words = vec![test.to_owned()];
    }
    Some(run)
}

/// For a machine that counts instructions.
#[must_use]
pub fn counting() -> Vec<Run> {
    let scenario = Scenario {
        program: INSTRUCTIONS,
        records: None,
        suites: Suites::Preferred,
        words: &[],
        always: false,
    };
    vec![scenario.run(None, Extent::Light)]
}

/// For a machine that has this node of two, in kernel records, and the lab's CA in that folder.
#[must_use]
pub fn half(node: Node, ca: &str, extent: Extent) -> Vec<Run> {
    let scenario = Scenario {
        program: HALVES,
        records: Some("kernel"),
        suites: Suites::Preferred,
        words: &[],
        always: false,
    };
    let mut run = scenario.run(None, extent);
    run.name = format!("{HALVES}/{}", node.name());
    let more = variables(&[("KEDGE_NODE", node.name()), ("KEDGE_LAB_CA", ca)]);
    run.variables.extend(more);
    vec![run]
}

fn test(name: &str) -> Run {
    Run {
        lane: Lane::Crates,
        name: name.to_owned(),
        program: place(name),
        // With the machine's TPM: it can be neither made nor switched off there.
        words: match name {
            "kedge-tpm/swtpm" => vec!["any_tpm::".to_owned()],
            _ => Vec::new(),
        },
        variables: variables(&[("KEDGE_SILENT_CANARIES", "/silent-canaries")]),
    }
}

impl Scenario {
    fn runs(&self, kernel: &Kernel, extent: Extent) -> Vec<Run> {
        let suites = match (&self.suites, extent) {
            (Suites::Preferred, _) => vec![None],
            (Suites::Several, Extent::Light) => vec![None, Some(&*kernel.second_suite)],
            (Suites::Several, Extent::Full) => SUITES.map(Some).to_vec(),
        };
        let run = |suite| self.run(suite, extent);
        suites.into_iter().map(run).collect()
    }

    /// With this suite and no other, or as daemons prefer.
    fn run(&self, suite: Option<&str>, extent: Extent) -> Run {
        let chosen = [("KEDGE_RECORDS", self.records), ("KEDGE_SUITE", suite)];
        let chosen = chosen
            .iter()
            .filter_map(|(name, value)| Some((*name, (*value)?)));
        let fixed = [
            ("CARGO_TARGET_DIR", TARGET),
            (stage::LAB, "vm"),
            ("KEDGE_LAB_SERVERS", "load"),
            ("KEDGE_PATIENCE", PATIENCE),
            ("KEDGE_SILENT_CANARIES", "/silent-canaries"),
        ];
        let fixed = fixed.iter().chain(extent.variables(suite)).copied();
        let name = [Some(self.program), self.records, suite];
        Run {
            lane: Lane::Lab,
            name: name.into_iter().flatten().collect::<Vec<_>>().join("/"),
            program: place(&format!("xtask/{}", self.program)),
            words: self.words.iter().map(|word| (*word).to_owned()).collect(),
            variables: variables(&fixed.chain(chosen).collect::<Vec<_>>()),
        }
    }
}

/// Where programs find what cargo has built.
const TARGET: &str = "/target";

/// Where in the machine a part of `target/` is.
#[must_use]
pub fn in_target(path: &str) -> String {
    Path::new(TARGET.trim_start_matches('/'))
        .join(path)
        .display()
        .to_string()
}

/// Where in the machine a test program of [`SCENARIO_PROGRAMS`] or of a crate is.
fn place(name: &str) -> String {
    format!("{TARGET}/{}", below_target(name))
}

/// As cargo would have it: beside a folder with what it starts.
#[must_use]
pub fn below_target(name: &str) -> String {
    format!("debug/deps/{}", name.replace('/', "-"))
}

fn variables(more: &[(&str, &str)]) -> BTreeMap<String, String> {
    // Here nothing may be missing: a test that skips itself has failed.
    let [device, maker] = MACHINES;
    let all = [
        ("PATH", "/bin"),
        ("KEDGE_STRICT", "1"),
        ("KEDGE_BPF_OBJECT", "/target/bpf/kedge.bpf.o"),
        (device, tpm::DEVICE),
        (maker, tpm::MAKER_IN_GUEST),
    ];
    all.iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::kernels;
    use super::*;

    fn of(kernel: &str, only: &[&str]) -> Vec<String> {
        let kernel = kernels::choose(&[kernel.to_owned()])
            .expect("the table")
            .remove(0);
        let only: Vec<_> = only.iter().map(|word| (*word).to_owned()).collect();
        runs(&kernel, &["flow"], &only, Extent::Light)
            .into_iter()
            .map(|run| run.name)
            .collect()
    }

    #[test]
    fn scenarios_are_played_where_kedge_can_be_loaded_and_all_of_them_on_request() {
        assert_eq!(of("5.10", &["shapes"]), <[&str; 0]>::default());
        assert_eq!(of("5.10", &[]), ["flow"]);
        assert_eq!(of("6.1", &[""]).len(), 1 + SCENARIOS.len() + 1);
        let always = [
            "flow",
            "records",
            "first_light/kernel",
            "guard/kernel",
            "shapes/kernel",
            "shapes/kernel/chacha20-poly1305",
        ];
        assert_eq!(of("6.1", &[]), always);
    }

    #[test]
    fn only_what_was_asked_for_is_run() {
        let shapes = [
            "shapes/kernel",
            "shapes/kernel/aes-128-gcm",
            "shapes/userspace",
        ];
        assert_eq!(of("7.3", &["shapes"]), shapes);
        let kernel = kernels::choose(&["7.3".to_owned()]).expect("the table");
        let only = ["shapes/kernel:sixty_four".to_owned()];
        let runs = runs(&kernel[0], &["flow"], &only, Extent::Full);
        let suites: Vec<_> = runs
            .iter()
            .map(|run| &run.variables["KEDGE_SUITE"])
            .collect();
        assert_eq!(suites, ["aes-256-gcm", "chacha20-poly1305", "aes-128-gcm"]);
        assert!(runs.iter().all(|run| run.words == ["sixty_four"]));
    }

    #[test]
    fn every_program_of_a_scenario_is_built() {
        let missing = SCENARIOS
            .iter()
            .find(|scenario| !SCENARIO_PROGRAMS.contains(&scenario.program));
        assert!(missing.is_none_or(|scenario| panic!("{}", scenario.program)));
    }
}
