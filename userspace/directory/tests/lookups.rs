//! Goal: the documented example answers every question of a connection's life, and each way to
//! write a directory that cannot be true is refused with the line and the offender.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use kedge_directory::{Directory, DirectoryError};
use kedge_model::{NodeName, OriginalDst, Refusal, SpiffeId};
use std::net::IpAddr;

fn example() -> &'static str {
    let document = include_str!("../../../docs/directory.md");
    document
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap()
}

fn directory() -> Directory {
    Directory::parse(example()).unwrap()
}

/// The example with one passage replaced.
fn edited(from: &str, to: &str) -> String {
    assert!(example().contains(from), "the example has no {from:?}");
    example().replacen(from, to, 1)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn dst(text: &str) -> OriginalDst {
    OriginalDst::new(text.parse().unwrap())
}

fn node(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

#[test]
fn a_service_resolves_to_an_endpoint_of_the_family_that_was_asked_for() {
    let directory = directory();
    for (asked, delivered) in [
        ("10.30.0.1:80", "10.20.2.2:8080"),
        ("[::ffff:10.30.0.1]:80", "10.20.2.2:8080"),
        ("[fd20::3:1]:80", "[fd20::2:2]:8080"),
    ] {
        let endpoint = directory.resolve(dst(asked), 5).unwrap();
        assert_eq!(endpoint.address, delivered.parse().unwrap());
        assert_eq!(
            (&*endpoint.workload.uid, endpoint.node.name.as_str()),
            ("nginx-1", "b")
        );
    }
}

#[test]
fn a_workload_resolves_to_itself_at_any_port() {
    let directory = directory();
    let endpoint = directory.resolve(dst("10.20.1.2:9"), 0).unwrap();
    assert_eq!(endpoint.address, "10.20.1.2:9".parse().unwrap());
    assert_eq!(endpoint.node.name, node("a"));
}

#[test]
fn what_is_not_there_is_refused_for_its_own_reason() {
    let directory = directory();
    let refusal = |at| directory.resolve(dst(at), 0).unwrap_err();
    assert_eq!(refusal("10.20.9.9:80"), Refusal::DestinationUnknown);
    assert_eq!(refusal("10.30.0.1:81"), Refusal::DestinationUnknown);
    assert_eq!(
        refusal("192.0.2.1:80"),
        Refusal::DestinationUnknown,
        "a node is no destination"
    );
    let text = edited(
        "endpoints = [{ uid = \"nginx-1\", port = 8080 }]",
        "endpoints = []",
    );
    let empty = Directory::parse(&text).unwrap();
    assert_eq!(
        empty.resolve(dst("10.30.0.1:80"), 0).unwrap_err(),
        Refusal::NoEndpoint
    );
}

#[test]
fn picks_go_round_all_endpoints() {
    let text = edited(
        "endpoints = [{ uid = \"nginx-1\", port = 8080 }]",
        "endpoints = [{ uid = \"nginx-1\", port = 8080 }, { uid = \"client-1\", port = 1 }]",
    );
    let directory = Directory::parse(&text).unwrap();
    let ports = [0, 1, 2, u64::MAX].map(|pick| {
        directory
            .resolve(dst("10.30.0.1:80"), pick)
            .unwrap()
            .address
            .port()
    });
    assert_eq!(ports, [8080, 1, 8080, 1]);
}

#[test]
fn a_node_is_found_by_each_of_its_addresses() {
    let directory = directory();
    let name = |at| directory.node_at(ip(at)).map(|node| node.name.as_str());
    for (at, expected) in [
        ("192.0.2.1", Some("a")),
        ("::ffff:192.0.2.1", Some("a")),
        ("2001:db8::2", Some("b")),
        ("192.0.2.3", None),
        ("10.20.1.2", None),
    ] {
        assert_eq!(name(at), expected, "{at}");
    }
}

#[test]
fn a_place_is_node_identity_and_address_together() {
    let directory = directory();
    let web = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/web").unwrap();
    let client = SpiffeId::parse("spiffe://lab.kedge/ns/default/sa/client").unwrap();
    assert!(directory.places(&node("b"), &web, ip("10.20.2.2")));
    assert!(directory.places(&node("b"), &web, ip("::ffff:10.20.2.2")));
    assert!(!directory.places(&node("a"), &web, ip("10.20.2.2")));
    assert!(!directory.places(&node("b"), &client, ip("10.20.2.2")));
    assert!(!directory.places(&node("b"), &web, ip("10.20.1.2")));
    assert!(!directory.places(&node("b"), &web, ip("192.0.2.2")));
}

#[test]
fn nodes_and_prefixes_are_told_with_their_defaults() {
    let directory = directory();
    let (a, old) = (
        directory.node(&node("a")).unwrap(),
        directory.node(&node("old")).unwrap(),
    );
    assert_eq!((a.peer_port, a.kedge, old.kedge), (15443, true, false));
    let peer: Vec<_> = a.peer_addresses().map(|at| at.to_string()).collect();
    assert_eq!(peer, ["192.0.2.1:15443", "[2001:db8::1]:15443"]);
    assert!(directory.is_managed(ip("10.20.200.1")) && !directory.is_managed(ip("1.1.1.1")));
    assert_eq!(directory.workloads_on(&node("b")).count(), 1);
}

#[test]
fn an_error_about_an_address_names_the_line_and_the_offender() {
    each_edit_is_refused(&[
        (
            "\"10.20.2.2\"",
            "\"10.20.1.2\"",
            "line 29: workload nginx-1 has address 10.20.1.2, which workload client-1 has already",
        ),
        (
            "\"10.20.2.2\"",
            "\"::ffff:192.0.2.1\"",
            "line 29: workload nginx-1 has address 192.0.2.1, which node a has already",
        ),
        (
            "\"10.30.0.1\"",
            "\"10.20.1.2\"",
            "line 35: service web has address 10.20.1.2, which workload client-1 has already",
        ),
        (
            "\"10.20.2.2\"",
            "\"127.0.0.1\"",
            "line 29: workload nginx-1 has address 127.0.0.1: ",
        ),
        (
            "\"10.20.2.2\"",
            "\"169.254.169.254\"",
            "line 29: workload nginx-1 has address 169.",
        ),
        (
            "\"192.0.2.9\"",
            "\"fe80::1\"",
            "line 15: node old has address fe80::1: ",
        ),
        ("[\"192.0.2.9\"]", "[]", "line 13: node old has no address"),
    ]);
}

#[test]
fn an_error_about_a_name_or_key_names_the_line_and_the_offender() {
    each_edit_is_refused(&[
        (
            "cgroup = \"pods/nginx\"",
            "cgroup = \"pods/nginx\"\ncolour = 1",
            "line 31: unknown field `colour`",
        ),
        ("version = 7", "version = -7", "line 1: "),
        (
            "node = \"b\"",
            "node = \"c\"",
            "line 25: workload nginx-1 is on node c, which",
        ),
        (
            "uid = \"nginx-1\", port",
            "uid = \"gone\", port",
            "service web has an endpoint with uid",
        ),
        (
            "uid = \"nginx-1\"\n",
            "uid = \"client-1\"\n",
            "line 25: workload client-1 is there twice",
        ),
        (
            "name = \"b\"",
            "name = \"a\"",
            "line 8: node a is there twice",
        ),
        ("sa/web", "sa/", "line 27: "),
        (
            "/ns/default/sa/web",
            "/kedge/node/b",
            "line 25: workload nginx-1 has id spiffe://",
        ),
        (
            "\"pods/nginx\"",
            "\"../nginx\"",
            "line 25: workload nginx-1 has cgroup \"../nginx\"",
        ),
        (
            "\"pods/nginx\"",
            "\"/nginx\"",
            "line 25: workload nginx-1 has cgroup \"/nginx\"",
        ),
        ("[8080]", "[0]", "line 25: workload nginx-1 has port 0"),
    ]);
}

/// Each of (text, its replacement, what the error says).
fn each_edit_is_refused(edits: &[(&str, &str, &str)]) {
    for (from, to, expected) in edits {
        let error = Directory::parse(&edited(from, to)).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
        assert!(error.starts_with("directory line "), "{error}");
    }
}

#[test]
fn two_services_share_an_address_but_not_a_port() {
    let second = |port: u16| {
        let service =
            format!("[[service]]\nname = \"x\"\naddresses = [\"10.30.0.1\"]\nport = {port}");
        Directory::parse(&format!("{}\n{service}\n", example()))
    };
    assert!(second(443).is_ok());
    let error = second(80).unwrap_err().to_string();
    assert!(
        error.contains("two services answer at 10.30.0.1 port 80: web and x"),
        "{error}"
    );
}

#[test]
fn one_cgroup_holds_one_workload_of_a_node() {
    let same = edited("\"pods/nginx\"", "\"pods/client\"");
    assert!(
        Directory::parse(&same).is_ok(),
        "on another node it is another cgroup"
    );
    let error = Directory::parse(&same.replace("node = \"b\"", "node = \"a\"")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("which workload client-1 has already"),
        "{error}"
    );
}

#[test]
fn a_change_needs_a_greater_version_and_the_same_again_is_no_change() {
    let moved = |version: u64| {
        let text = edited("\"10.20.2.2\"", "\"10.20.2.3\"");
        Directory::parse(&text.replace("version = 7", &format!("version = {version}"))).unwrap()
    };
    assert!(directory().accept_newer(directory()).unwrap().is_none());
    assert_eq!(
        directory()
            .accept_newer(moved(8))
            .unwrap()
            .unwrap()
            .version(),
        8
    );
    for stale in [7, 6] {
        let refused = directory().accept_newer(moved(stale)).unwrap_err();
        assert_eq!(
            refused,
            DirectoryError::NotNewer {
                have: 7,
                offered: stale
            }
        );
    }
}

#[test]
fn changes_name_each_placement_that_came_or_went() {
    let text = edited("\"10.20.2.2\"", "\"10.20.2.3\"");
    let changes = Directory::parse(&text).unwrap().changes_since(&directory());
    let told = |list: &[kedge_directory::Placement]| -> Vec<String> {
        list.iter()
            .map(|p| format!("{} {}", p.uid, p.address))
            .collect()
    };
    assert_eq!(told(&changes.added), ["nginx-1 10.20.2.3"]);
    assert_eq!(told(&changes.removed), ["nginx-1 10.20.2.2"]);
    assert!(!changes.nodes_changed && !changes.services_changed);
    assert!(directory().changes_since(&directory()).is_empty());
}

#[test]
fn a_workload_that_is_made_anew_at_its_address_is_a_change() {
    let text = edited("uid = \"nginx-1\"\n", "uid = \"nginx-2\"\n")
        .replace("uid = \"nginx-1\", port", "uid = \"nginx-2\", port");
    let changes = Directory::parse(&text).unwrap().changes_since(&directory());
    assert_eq!((changes.added.len(), changes.removed.len()), (2, 2));
    assert!(changes.services_changed);
}

#[test]
fn endpoints_on_nodes_without_kedge_are_the_last_resort() {
    let on_old = |endpoints: &str| {
        let workload = "[[workload]]\nuid = \"plain-1\"\nnode = \"old\"\ncgroup = \"pods/plain\"\n\
            id = \"spiffe://lab.kedge/ns/default/sa/web\"\naddresses = [\"10.20.3.2\"]\n[[service]]";
        let text = edited("[[service]]", workload);
        Directory::parse(&text.replace("{ uid = \"nginx-1\", port = 8080 }", endpoints)).unwrap()
    };
    let uids = |directory: &Directory| {
        [0, 1].map(|pick| {
            directory
                .resolve(dst("10.30.0.1:80"), pick)
                .unwrap()
                .workload
                .uid
                .clone()
        })
    };
    let plain = "{ uid = \"plain-1\", port = 80 }";
    assert_eq!(
        uids(&on_old(plain)).map(|uid| uid.to_string()),
        ["plain-1", "plain-1"]
    );
    let both = on_old(&format!("{plain}, {{ uid = \"nginx-1\", port = 8080 }}"));
    assert_eq!(
        uids(&both).map(|uid| uid.to_string()),
        ["nginx-1", "nginx-1"]
    );
}
