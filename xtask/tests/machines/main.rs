//! Goal: two machines, each with a kernel and a TPM of its own, attest each other and carry every
//! shape in records of their kernels; where one kernel takes a next key in place and the other does
//! not, the flows go on by what both can.
//!
//! ```text
//!    machine of node a                                       machine of node b
//!  client ──► kedged a ── kTLS ══ Ethernet, captured ══ kTLS ── kedged b ──► load
//!                │                                                │
//!               TPM                      kedge-verifier          TPM
//! ```
//! `cargo xtask vm pair` boots both and runs this test in each: `KEDGE_NODE` says which half of the
//! lab a machine has.

mod meeting;

use anyhow::{Context, Result, ensure};
use meeting::Meeting;
use serde_json::Value;
use std::time::{Duration, Instant};
use xtask::artifacts::{self, Tools};
use xtask::lab::attestation::Attesting;
use xtask::lab::topology::Node;
use xtask::lab::{Build, Lab};
use xtask::shapes::{self, SHAPES};
use xtask::stage::{self, times};
use xtask::wire::Capture;

/// The Verifier is asked on the wire, in plain HTTP: not again while the oracle listens.
const ATTESTING: Attesting<'static> = Attesting {
    mode: "required",
    lifetime_s: 24 * 3_600,
    hard_lifetime_s: 24 * 3_600,
    max_stale_s: 0,
    lines: "",
};
const RESULT: Duration = Duration::from_secs(30);
/// Keys of so few records, in the control build.
const SHORT_KEYS: &str = "short-keys:48";
const BULK: &str = "64-mib-both-at-once";

#[test]
fn two_nodes_on_two_kernels_attest_each_other_and_lose_no_byte() {
    let Some(node) = node() else {
        return xtask::stage::skip("it takes two machines: `cargo xtask vm pair` boots them");
    };
    if let Err(error) = play(node) {
        panic!("{error:#}");
    }
}

fn node() -> Option<Node> {
    let name = std::env::var("KEDGE_NODE").ok()?;
    Some(match &*name {
        "a" => Node::A,
        "b" => Node::B,
        _ => panic!("KEDGE_NODE is {name:?}, neither a nor b"),
    })
}

fn play(node: Node) -> Result<()> {
    let run = "half".parse()?;
    let lab = Lab::half(node, run, &Tools::release(), &stage::xtask()?)?;
    let meeting = Meeting::begin(&lab, node)?;
    let mut half = Half { lab, node, meeting };
    if node == Node::B {
        shapes::serve(&mut half.lab)?;
    }
    let started = Instant::now();
    half.attest()?;
    println!("attested within {:.1} s", started.elapsed().as_secs_f64());
    half.plays("shapes", |lab| {
        let mut shapes = SHAPES.iter();
        shapes.try_for_each(|(shape, _)| exact(lab, shape, times(70, 200)))
    })?;
    for direction in ["kernel_tls.TlsTxSw", "kernel_tls.TlsRxSw"] {
        let count = half.counter(direction)?;
        ensure!(count > 0, "{direction}: no record was the kernel's");
    }
    half.shorten_keys()?;
    half.plays("updates", |lab| exact(lab, BULK, 1))?;
    let directions = ["keys.changed_sending", "keys.changed_receiving"];
    let [sending, receiving] = directions.map(|name| half.counter(name));
    let (sending, receiving) = (sending?, receiving?);
    println!("{sending} keys to send and {receiving} to receive with were changed");
    ensure!(sending + receiving >= 150, "in 128 MiB");
    Ok(())
}

/// A node of the two, on its machine.
struct Half {
    lab: Lab,
    node: Node,
    meeting: Meeting,
}

impl Half {
    /// With the Verifier on node b, which both believe, and a policy of what both TPMs hold.
    fn attest(&mut self) -> Result<()> {
        let pin = match self.node {
            Node::A => self.meeting.exchange("")?,
            Node::B => {
                let pin = self.lab.make_verifier(&ATTESTING)?;
                self.meeting.exchange(&pin)?;
                pin
            }
        };
        let mine = self.lab.enrol_nodes(&ATTESTING, &pin)?;
        let theirs = self.meeting.exchange(&mine)?;
        if self.node == Node::B {
            self.lab.start_verifier_with(&[&mine, &theirs])?;
        }
        self.lab.has_result(self.node, RESULT)
    }

    /// Starts the control build in the place of the daemon.
    fn shorten_keys(&mut self) -> Result<()> {
        let build = Build {
            kedged: artifacts::build_faulty_kedged()?,
            object: self.lab.tools.object.clone(),
            lines: self.lab.section(self.node, &ATTESTING),
        };
        self.lab.stop_daemon(self.node)?;
        self.lab.start_build(self.node, &build, Some(SHORT_KEYS))?;
        self.lab.daemon_answers(self.node)?;
        self.lab.has_result(self.node, RESULT)
    }

    /// Node a acts while the oracle listens; node b serves until that is done.
    fn plays(&mut self, name: &str, act: fn(&Lab) -> Result<()>) -> Result<()> {
        self.meeting.exchange("ready")?;
        let played = match self.node {
            Node::A => under_the_oracle(&mut self.lab, name, act),
            Node::B => Ok(()),
        };
        let mine = played
            .as_ref()
            .map_or_else(|error| format!("{error:#}"), |()| String::new());
        let theirs = self.meeting.exchange(&mine)?;
        ensure!(theirs.is_empty(), "the other machine: {theirs}");
        played
    }

    fn counter(&self, name: &str) -> Result<u64> {
        let status = self.lab.kedge(self.node, &["status", "--json"])?;
        let status: Value = serde_json::from_str(&status).context("kedge status")?;
        Ok(status["counters"][name].as_u64().unwrap_or(0))
    }
}

fn under_the_oracle(lab: &mut Lab, name: &str, act: fn(&Lab) -> Result<()>) -> Result<()> {
    let capture = Capture::start(lab, name)?;
    let started = Instant::now();
    let played = act(lab);
    let took = started.elapsed().as_secs_f64();
    let report = capture.finish(lab);
    played?;
    let report = report?;
    println!("{name}, played for {took:.1} s: {report}");
    report.is_clean()?;
    ensure!(report.full_handshakes() == 1, "{report}");
    Ok(())
}

fn exact(lab: &Lab, shape: &str, count: usize) -> Result<()> {
    let played = shapes::play(lab, shape, count)?;
    ensure!(played.cut == 0, "{shape}: {played:?}");
    shapes::agrees_from_afar(lab, shape, &played)
}
