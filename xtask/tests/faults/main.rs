//! Twenty faults, as docs/troubleshooting.md lists them: each is injected; `kedge event follow` of
//! one node names its cause and what to do; that is done, and it works again.
//!
//! ```text
//!  client, local, bare ──┤ kedged a ├──── wire ────┤ kedged b ├── load
//!                             ╰── event follow ──╯
//! ```

mod certificates;
mod documents;
mod follow;
mod network;

use anyhow::{Context, Result, ensure};
use follow::Followed;
use std::time::Duration;
use xtask::artifacts::repository;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, Node};
use xtask::shell::wait_for;
use xtask::stage::{becomes_reachable, client_reaches, play};

/// One row of the document.
struct Fault {
    name: &'static str,
    /// Whose operator is told.
    node: Node,
    inject: fn(&mut Lab) -> Result<()>,
    /// What the event's kind is, and what its cause and remedy contain.
    kind: &'static str,
    says: &'static [&'static str],
    /// Does what the remedy says.
    cure: fn(&mut Lab) -> Result<()>,
    works: fn(&Lab) -> Result<bool>,
}

#[test]
fn twenty_faults_are_told_with_their_cause_and_a_remedy_that_works() {
    play(|lab| {
        let mut failed = Vec::new();
        for fault in faults() {
            becomes_reachable(lab, &CLIENT)?;
            if let Err(error) = fault.play(lab) {
                failed.push(format!("{}: {error:#}", fault.name));
            }
        }
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    });
}

#[test]
fn the_document_lists_the_faults_that_are_played() {
    let path = repository().join("docs/troubleshooting.md");
    let text = std::fs::read_to_string(path).expect("the document");
    // Those of attestation are played by tests of their own.
    let (text, _) = text.split_once("\nAttestation ").expect("two tables");
    let rows: Vec<(&str, &str)> = text.lines().filter_map(row).collect();
    let played: Vec<_> = faults().map(|fault| (fault.name, fault.kind)).collect();
    assert_eq!(played.len(), 20);
    assert_eq!(rows, played);
}

/// Name and event of a line such as `` | a fault | `refused` | … ``.
fn row(line: &str) -> Option<(&str, &str)> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    let (name, kind) = (cells.next()?, cells.next()?);
    Some((name, kind.strip_prefix('`')?.strip_suffix('`')?))
}

fn faults() -> impl Iterator<Item = Fault> {
    documents::FAULTS
        .into_iter()
        .chain(certificates::FAULTS)
        .chain(network::FAULTS)
}

impl Fault {
    fn play(&self, lab: &mut Lab) -> Result<()> {
        let followed = Followed::start(lab, self.node)?;
        (self.inject)(lab).context("inject")?;
        let told = followed.told(self.kind, self.says);
        let cured = (self.cure)(lab).context("cure");
        println!("{}\n    {}", self.name, told?);
        cured?;
        wait_for("it to work again", Duration::from_secs(15), || {
            Ok((self.works)(lab)?.then_some(()))
        })
    }
}

/// Most faults keep pod `client` from pod `load`.
fn works(lab: &Lab) -> Result<bool> {
    client_reaches(lab)
}

/// Whether or not it gets through: what counts is what is told.
fn try_to_reach(lab: &Lab) -> Result<()> {
    client_reaches(lab).map(drop)
}
