//! A directory that lags or lies costs connections, never an identity: each end asks its own.

use crate::counted::refused_as;
use anyhow::{Context, Result, ensure};
use xtask::lab::documents;
use xtask::lab::topology::{CLIENT, Node, PODS};
use xtask::lab::{Lab, documents::replace};
use xtask::stage::{
    becomes_reachable, client_reaches, next_version, play, put_into_directory, takes_effect,
};
use xtask::steady::Steady;

/// Gives node a the directory as it should be, but for what `lie` changes.
pub fn at_a(lab: &Lab, lie: impl Fn(&str) -> String) -> Result<()> {
    told_to(lab, Node::A, lie)
}

fn told_to(lab: &Lab, node: Node, lie: impl Fn(&str) -> String) -> Result<()> {
    let version = next_version();
    let path = lab.run.node_folder(node).join("directory.toml");
    replace(&path, &lie(&documents::directory(version, &PODS)))?;
    takes_effect(lab, node, version)
}

/// What is refused while `lie` is told to a node, and that it ends with the lie.
fn lie_is_refused(
    lab: &Lab,
    (liar, lie): (Node, fn(&str) -> String),
    (node, refusal): (Node, (&str, &str)),
) -> Result<()> {
    becomes_reachable(lab, &CLIENT).context("with the truth")?;
    told_to(lab, liar, lie)?;
    refused_as(lab, node, refusal, || {
        ensure!(!client_reaches(lab)?, "reached by a lie");
        Ok(())
    })?;
    let version = put_into_directory(lab, &PODS)?;
    [Node::A, Node::B]
        .into_iter()
        .try_for_each(|node| takes_effect(lab, node, version))?;
    becomes_reachable(lab, &CLIENT).context("with the truth again")
}

#[test]
fn a_source_that_the_other_directory_has_elsewhere_or_nowhere_is_refused() {
    play(|lab| {
        let elsewhere = |directory: &str| {
            let client = "sa/client\"\nnode = \"a\"";
            directory.replace(client, "sa/client\"\nnode = \"b\"")
        };
        let renamed = |directory: &str| directory.replace("sa/client\"", "sa/customer\"");
        for lie in [elsewhere as fn(&str) -> String, renamed] {
            let refusal = ("refused.source-mismatch", "the source address is not one");
            lie_is_refused(lab, (Node::B, lie), (Node::B, refusal))?;
        }
        Ok(())
    });
}

#[test]
fn another_instance_of_the_destination_is_stale() {
    play(|lab| {
        let old = |directory: &str| directory.replace("\"load-1\"", "\"load-0\"");
        let refusal = ("refused.stale", "changed hands");
        lie_is_refused(lab, (Node::A, old), (Node::A, refusal))
    });
}

/// Node b is called c, at its own address: whoever answers there must prove to be c.
#[test]
fn a_node_that_answers_in_anothers_place_gets_no_link() {
    play(|lab| {
        let renamed = |directory: &str| {
            directory
                .replace("name = \"b\"", "name = \"c\"")
                .replace("node = \"b\"", "node = \"c\"")
        };
        let refusal = (
            "links.failed.other-node",
            "kedge/node/c, found spiffe://lab.kedge/kedge/node/b",
        );
        lie_is_refused(lab, (Node::A, renamed), (Node::A, refusal))
    });
}

/// An entry that the other side does not have yet is one that it gets.
#[test]
fn what_a_directory_lacks_for_a_while_works_once_it_is_there() {
    play(|lab| {
        let steady = Steady::start(lab)?;
        let without: Vec<_> = PODS.into_iter().filter(|pod| pod.name != "local").collect();
        let version = next_version();
        lab.write_directory(Node::B, version, &without)?;
        takes_effect(lab, Node::B, version)?;
        ensure!(client_reaches(lab)?, "others are not concerned");
        let outcome = steady.finish()?;
        ensure!(outcome["errors"] == 0, "{outcome}");
        Ok(())
    });
}
