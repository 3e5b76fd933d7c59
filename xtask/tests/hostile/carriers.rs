//! What is said on a carrier, and what the path between two nodes does to it: nothing is delivered
//! twice or changed, every cut is an error at both ends, and the link stays what it is.

use crate::counted::{Before, count, refused_as};
use crate::directories::at_a;
use crate::peers::say;
use anyhow::{Context, Result, ensure};
use kedge_link::Role;
use kedge_link::wire::{LinkId, Opening};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use xtask::lab::process::{Family, Process};
use xtask::lab::topology::{CLIENT, Node, PEER_PORT};
use xtask::lab::{Lab, WIRE};
use xtask::shapes;
use xtask::stage::{becomes_reachable, client_reaches, play};
use xtask::steady::Steady;

/// Where the hostile path listens on node b.
const PATH: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const PATH_PORT: u16 = PEER_PORT + 1;
/// Opening, header and record 0 of a flow of the lab, and the first bytes of a record behind.
const FLIGHT: RangeInclusive<usize> = 0..=220;
/// Its answer, and the first bytes of a record behind.
const ANSWER: RangeInclusive<usize> = 0..=60;
/// In so long whatever is refused again and again is told.
const TOLD: Duration = Duration::from_secs(8);

/// A link of node b, and b's role on it.
fn link(lab: &Lab) -> Result<(LinkId, Role)> {
    let list: Value = serde_json::from_str(&lab.kedge(Node::B, &["link", "list", "--json"])?)?;
    let link = &list["links"][0];
    let hex = link["link_id"].as_str().context("a live link")?;
    let mut id = [0; 16];
    for (byte, digits) in id.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits)?, 16)?;
    }
    let role = match link["role"].as_str() {
        Some("client") => Role::TlsClient,
        _ => Role::TlsServer,
    };
    Ok((LinkId(id), role))
}

#[test]
fn a_carrier_that_is_none_of_ours_is_refused_and_harms_none() {
    play(|lab| {
        let steady = Steady::start(lab)?;
        let (link_id, ours) = link(lab)?;
        let opening = |link_id, role| Opening {
            role,
            link_id,
            carrier: 1 << 40,
            tag: [0; Opening::TAG_LEN],
        };
        let forged = opening(link_id, ours.peer()).encode();
        let mut of_version_9 = forged;
        of_version_9[1] = 9;
        let unknown = opening(LinkId([0x5a; 16]), ours.peer()).encode();
        let reflected = opening(link_id, ours).encode();
        for (refusal, bytes) in [
            (
                ("strangers.bad-flight", "carrier opening: kind 0x47"),
                &b"GET / HTTP/1.1\r\n"[..],
            ),
            (("strangers.bad-flight", "version 9"), &of_version_9),
            (
                (
                    "strangers.bad-flight",
                    "does not open under this link's keys",
                ),
                &forged,
            ),
            (("strangers.bad-flight", "so it was reflected"), &reflected),
            (("strangers.unknown-link", "no link 5a5a5a5a"), &unknown),
            (
                ("strangers.bad-flight", "nothing said within 5 s"),
                &forged[..20],
            ),
        ] {
            refused_as(lab, Node::B, refusal, || say(lab, bytes))?;
        }
        let outcome = steady.finish()?;
        ensure!(outcome["errors"] == 0, "the flow that was there: {outcome}");
        ensure!(link(lab)?.0 == link_id, "the link is another one");
        Ok(())
    });
}

#[test]
fn a_carrier_ended_by_the_path_at_any_byte_is_an_error_and_nothing_else() {
    play(|lab| {
        for (act, places) in [
            ("cut-rst", FLIGHT),
            ("cut-fin", FLIGHT),
            ("cut-answer-rst", ANSWER),
            ("cut-answer-fin", ANSWER),
        ] {
            on_a_hostile_path(lab, act, places)?;
        }
        Ok(())
    });
}

/// As many streams as it takes until the path has acted at each of the places.
fn on_a_hostile_path(lab: &mut Lab, act: &str, places: RangeInclusive<usize>) -> Result<()> {
    shapes::serve(lab)?;
    let kept = Kept::now(lab)?;
    let path = Path::start(lab, act, &places)?;
    let mut acted = BTreeSet::new();
    for _ in 0..20 {
        let played = shapes::play(lab, "client-first", 60)?;
        shapes::agrees(lab, "client-first", &played)?;
        acted = path.acts(lab, act);
        if places.clone().all(|place| acted.contains(&place)) {
            break;
        }
    }
    let missing: Vec<_> = places.filter(|place| !acted.contains(place)).collect();
    ensure!(missing.is_empty(), "{act}: never at {missing:?}");
    path.end(lab)?;
    kept.still(lab).context(act.to_owned())
}

#[test]
fn bytes_that_were_said_before_are_said_in_vain() {
    play(|lab| {
        shapes::serve(lab)?;
        let again = ("strangers.replayed", "was taken before");
        for act in ["repeat", "splice"] {
            let kept = Kept::now(lab)?;
            let before = Before::now(lab, Node::B, again.0)?;
            let path = Path::start(lab, act, &(0..=0))?;
            let started = Instant::now();
            while !before.was_refused(lab, again)? {
                ensure!(
                    started.elapsed() < TOLD,
                    "{act}: nothing is counted and told"
                );
                let played = shapes::play(lab, "client-first", 20)?;
                shapes::agrees(lab, "client-first", &played)?;
            }
            ensure!(
                !path.acts(lab, act).is_empty(),
                "{act}: nothing was said again"
            );
            path.end(lab)?;
            kept.same_link(lab).context(act)?;
        }
        Ok(())
    });
}

/// What no unauthenticated word may change.
struct Kept {
    link: LinkId,
    handshakes: u64,
    replayed: u64,
}

impl Kept {
    fn now(lab: &Lab) -> Result<Self> {
        becomes_reachable(lab, &CLIENT)?;
        Ok(Self {
            link: link(lab)?.0,
            handshakes: count(lab, Node::B, "links.handshakes")?,
            replayed: count(lab, Node::B, "refused.replayed")?,
        })
    }

    /// The same link, and so the same algorithms, with a window that takes the next flow.
    fn same_link(&self, lab: &Lab) -> Result<()> {
        becomes_reachable(lab, &CLIENT)?;
        ensure!(link(lab)?.0 == self.link, "another link");
        let handshakes = count(lab, Node::B, "links.handshakes")?;
        ensure!(handshakes == self.handshakes, "{handshakes} handshakes");
        Ok(())
    }

    /// Besides, nobody has tried to use a number twice.
    fn still(&self, lab: &Lab) -> Result<()> {
        self.same_link(lab)?;
        let replayed = count(lab, Node::B, "refused.replayed")?;
        ensure!(replayed == self.replayed, "{replayed} replays");
        Ok(())
    }
}

/// What passes on node a's carriers; the link stays where it is.
struct Path {
    process: Process,
    name: String,
    told: usize,
}

impl Path {
    fn start(lab: &mut Lab, act: &str, places: &RangeInclusive<usize>) -> Result<Self> {
        let program = lab.tools.load.display().to_string();
        let (listen, to) = (
            format!("[::]:{PATH_PORT}"),
            format!("{}:{PEER_PORT}", Node::B.v4()),
        );
        let (first, last) = (places.start().to_string(), places.end().to_string());
        let words = [
            &program, "path", &listen, &to, act, "--first", &first, "--last", &last,
        ];
        let name = format!("path-{act}");
        let told = lab.log(&name).lines().count();
        let process = lab.spawn(Node::B, &name, &words)?;
        process.listens_on(&lab.run, Family::V6, PATH_PORT)?;
        let address = format!("{PATH}/24");
        lab.run(
            Node::B,
            &["ip", "address", "replace", &address, "dev", WIRE],
        )?;
        at_a(lab, path_in_place_of_b)?;
        let path = Self {
            process,
            name,
            told,
        };
        path.use_up_idle_carriers(lab)?;
        Ok(path)
    }

    /// Up to 16 that were opened before go straight to node b; as many may pass before the path
    /// has heard what it is to repeat.
    fn use_up_idle_carriers(&self, lab: &Lab) -> Result<()> {
        for _ in 0..100 {
            if !client_reaches(lab)? || !self.lines(lab).is_empty() {
                return Ok(());
            }
        }
        anyhow::bail!("{}: no carrier comes this way", self.name)
    }

    fn lines(&self, lab: &Lab) -> Vec<String> {
        let log = lab.log(&self.name);
        log.lines().skip(self.told).map(str::to_owned).collect()
    }

    /// The places at which it has acted so far.
    fn acts(&self, lab: &Lab, act: &str) -> BTreeSet<usize> {
        let lines = self.lines(lab);
        let places = lines.iter().filter_map(|line| line.strip_prefix(act));
        places
            .filter_map(|place| place.trim().parse().ok())
            .collect()
    }

    fn end(self, lab: &Lab) -> Result<()> {
        at_a(lab, str::to_owned)?;
        self.process.stop(nix::sys::signal::Signal::SIGKILL)
    }
}

/// The directory with the path in node b's place. Node b's own address is a node of another name:
/// a daemon talks to no place that is no node's, and the link goes on there.
fn path_in_place_of_b(directory: &str) -> String {
    let (v4, v6) = (Node::B.v4(), Node::B.v6());
    let addresses = format!("addresses = [\"{v4}\", \"{v6}\"]\npeer_port = {PEER_PORT}\n");
    let path = format!("addresses = [\"{PATH}\"]\npeer_port = {PATH_PORT}\n");
    let direct = format!("{path}\n[[node]]\nname = \"direct\"\n{addresses}");
    directory.replacen(&addresses, &direct, 1)
}
