//! Faults of policy and directory.

use crate::{Fault, try_to_reach, works};
use anyhow::Result;
use std::net::Ipv4Addr;
use xtask::lab::topology::{CLIENT, LOAD, LOAD_PORT, LOCAL, Node, PODS, Pod, SERVICES};
use xtask::lab::{Lab, documents};
use xtask::stage::{at, everywhere, next_version, put_into_directory, reaches, server, told};

pub const FAULTS: [Fault; 9] = [
    Fault {
        name: "policy does not allow it",
        node: Node::A,
        inject: |lab| reaches(lab, &LOCAL, &server()).map(drop),
        kind: "refused",
        says: &["policy does not allow", "[[allow]]"],
        cure: |lab| {
            let rule = documents::allow(&LOCAL.spiffe_id(), &LOAD.spiffe_id());
            let policy = documents::policy() + &rule;
            everywhere(lab, |lab, node| lab.write_policy(node, "lab", &policy))
        },
        works: |lab| reaches(lab, &LOCAL, &server()),
    },
    Fault {
        name: "a policy document with a typing error",
        node: Node::A,
        inject: |lab| lab.write_policy(Node::A, "lab", "[[alow]]\n"),
        kind: "policy-rejected",
        says: &["lab.toml", "alow", "correct the file"],
        cure: |lab| lab.write_policy(Node::A, "lab", &documents::policy()),
        works,
    },
    Fault {
        name: "a directory with a typing error",
        node: Node::A,
        inject: |lab| write_directory(lab, "version = \"two\"\n"),
        kind: "directory-rejected",
        says: &["directory.toml", "line 1", "correct the file"],
        cure: put_back,
        works,
    },
    Fault {
        name: "a directory older than the one in force",
        node: Node::A,
        inject: |lab| lab.write_directory(Node::A, 1, &PODS[..2]),
        kind: "directory-rejected",
        says: &["version 1", "correct the file"],
        cure: put_back,
        works,
    },
    Fault {
        name: "the source is not in the directory",
        node: Node::A,
        inject: |lab| loses(lab, Node::A, &CLIENT),
        kind: "refused",
        says: &[
            "connecting workload is not in the directory",
            "add the workload",
        ],
        cure: put_back,
        works,
    },
    Fault {
        name: "the destination is not in the directory",
        node: Node::A,
        inject: |lab| {
            let nowhere = at(Ipv4Addr::new(10, 244, 2, 99), LOAD_PORT);
            reaches(lab, &CLIENT, &nowhere).map(drop)
        },
        kind: "capture-refused",
        says: &["not known with kedge", "add the destination"],
        cure: put_back,
        works,
    },
    Fault {
        name: "the source's node has another directory than the destination's",
        node: Node::A,
        inject: |lab| {
            let left = without(&LOAD);
            lab.write_directory(Node::B, next_version(), &left)?;
            xtask::shell::wait_for(
                "node b to lose the pod",
                std::time::Duration::from_secs(5),
                || Ok((!works(lab)?).then_some(())),
            )?;
            // The last one may have been open already, and was cut.
            try_to_reach(lab)
        },
        kind: "refused",
        says: &["not placed on the answering node", "directory versions"],
        cure: put_back,
        works,
    },
    Fault {
        name: "a service without an endpoint",
        node: Node::A,
        inject: |lab| {
            let text = documents::directory(next_version(), &PODS);
            let endpoint = format!("{{ uid = \"{}\", port = {LOAD_PORT} }}", LOAD.uid());
            write_directory(lab, &text.replace(&endpoint, ""))?;
            xtask::shell::wait_for(
                "the service to lose its endpoint",
                std::time::Duration::from_secs(5),
                || Ok((!reaches(lab, &CLIENT, &service())?).then_some(())),
            )
        },
        kind: "capture-refused",
        says: &["service has no endpoint", "correct its endpoints"],
        cure: put_back,
        works: |lab| reaches(lab, &CLIENT, &service()),
    },
    Fault {
        name: "the destination's node has no kedge",
        node: Node::A,
        inject: |lab| {
            let text = documents::directory(next_version(), &PODS);
            let b = "name = \"b\"\n";
            let since = told(lab, Node::A)?;
            write_directory(lab, &text.replacen(b, &format!("{b}kedge = false\n"), 1))?;
            // Workers refuse at once, and a moment later the programs do, which is meant here.
            xtask::shell::wait_for(
                "node b to be without kedge",
                std::time::Duration::from_secs(5),
                || {
                    try_to_reach(lab)?;
                    let events = lab.events(Node::A)?;
                    let mut new = events.lines().skip(since);
                    Ok(new
                        .any(|event| event.contains("not known with kedge"))
                        .then_some(()))
                },
            )
        },
        kind: "capture-refused",
        says: &["not known with kedge", "mode permissive"],
        cure: put_back,
        works,
    },
];

fn service() -> String {
    let service = SERVICES.iter().find(|service| *service.pod == LOAD);
    let service = service.expect("pod load has a service");
    at(service.v4(), service.port)
}

fn put_back(lab: &mut Lab) -> Result<()> {
    put_into_directory(lab, &PODS).map(drop)
}

fn loses(lab: &Lab, node: Node, gone: &'static Pod) -> Result<()> {
    lab.write_directory(node, next_version(), &without(gone))?;
    xtask::shell::wait_for(
        "the pod to be unknown",
        std::time::Duration::from_secs(10),
        || Ok((!works(lab)?).then_some(())),
    )?;
    try_to_reach(lab)
}

fn without(gone: &'static Pod) -> Vec<&'static Pod> {
    PODS.into_iter().filter(|pod| *pod != gone).collect()
}

fn write_directory(lab: &Lab, text: &str) -> Result<()> {
    documents::replace(&lab.run.node_folder(Node::A).join("directory.toml"), text)
}
