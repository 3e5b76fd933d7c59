//! Faults of certificates, bundles and revocations.

use crate::{Fault, try_to_reach, works};
use anyhow::Result;
use std::fs;
use std::time::Duration;
use xtask::lab::topology::Node;
use xtask::lab::{Lab, documents};
use xtask::shell::wait_for;

pub const FAULTS: [Fault; 7] = [
    Fault {
        name: "a certificate of a CA that the bundle does not have",
        node: Node::A,
        inject: |lab| {
            let stranger = lab.make_ca("ca-stranger")?;
            let out = lab.run.folder().join("of-stranger");
            lab.issue(&stranger, Node::A, &out, 24.0)?;
            give(
                lab,
                Node::A,
                "node.pem",
                &fs::read_to_string(out.join("node.pem"))?,
            )
        },
        kind: "svid-rejected",
        says: &["not signed by an authority", "correct the file"],
        cure: |lab| lab.issue_certificate(Node::A),
        works,
    },
    Fault {
        name: "a certificate of another node",
        node: Node::A,
        inject: |lab| {
            let other = fs::read_to_string(lab.run.node_folder(Node::B).join("node.pem"))?;
            give(lab, Node::A, "node.pem", &other)
        },
        kind: "svid-rejected",
        says: &["kedge/node/b, not", "correct the file"],
        cure: |lab| lab.issue_certificate(Node::A),
        works,
    },
    Fault {
        name: "a private key that cannot be read",
        node: Node::A,
        inject: |lab| {
            Ok(fs::remove_file(
                lab.run.node_folder(Node::A).join("node.key"),
            )?)
        },
        kind: "svid-rejected",
        says: &["node.key", "correct the file"],
        cure: |lab| lab.issue_certificate(Node::A),
        works,
    },
    Fault {
        name: "a revocation list with a typing error",
        node: Node::A,
        inject: |lab| give(lab, Node::A, "revoked", "spiffe:/lab.kedge/kedge/node/b\n"),
        kind: "trust-rejected",
        says: &["line 1", "correct the file"],
        cure: |lab| give(lab, Node::A, "revoked", ""),
        works,
    },
    Fault {
        name: "the other node is revoked",
        node: Node::A,
        inject: |lab| {
            give(lab, Node::A, "revoked", "spiffe://lab.kedge/kedge/node/b\n")?;
            is_cut_off(lab)
        },
        kind: "link-failed",
        says: &["kedge/node/b is revoked", "take its line out"],
        cure: |lab| give(lab, Node::A, "revoked", ""),
        works,
    },
    Fault {
        name: "the other node's certificate has expired",
        node: Node::A,
        inject: |lab| {
            let folder = lab.run.node_folder(Node::B);
            lab.issue(&lab.ca(), Node::B, &folder, 5.0 / 3_600.0)?;
            is_cut_off(lab)
        },
        kind: "link-failed",
        says: &["certificate expired at", "kedge ca issue"],
        cure: |lab| lab.issue_certificate(Node::B),
        works,
    },
    Fault {
        name: "the other node does not know our CA",
        node: Node::B,
        inject: |lab| {
            let stranger = lab.make_ca("ca-stranger")?;
            let bundle = fs::read_to_string(stranger.join("ca.pem"))?;
            give(lab, Node::B, "bundle.pem", &bundle)?;
            is_cut_off(lab)
        },
        kind: "link-failed",
        says: &["not signed by an authority", "bundle.pem of the CA"],
        cure: |lab| {
            let bundle = fs::read_to_string(lab.ca().join("ca.pem"))?;
            give(lab, Node::B, "bundle.pem", &bundle)
        },
        works,
    },
];

/// Until pod `client` cannot reach the other node any more, and it has tried.
fn is_cut_off(lab: &Lab) -> Result<()> {
    wait_for(
        "the other node to be cut off",
        Duration::from_secs(15),
        || Ok((!works(lab)?).then_some(())),
    )?;
    try_to_reach(lab)
}

fn give(lab: &Lab, node: Node, name: &str, text: &str) -> Result<()> {
    documents::replace(&lab.run.node_folder(node).join(name), text)
}
