//! Goal: the verdict of a set of documents is what docs/policy.md says, however the rules are
//! spread over documents; `explain` says the same as `decide`; and each class is compiled as told.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use ipnet::IpNet;
use kedge_directory::Directory;
use kedge_model::{Mode, NodeName, RecordsMode, SpiffeId};
use kedge_policy::{Document, Explanation, Policy, PolicyError, Request, Verdict, compile};
use std::net::IpAddr;
use std::path::Path;

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org/ns/{path}")).unwrap()
}

fn parse(documents: &[(&str, &str)]) -> Result<Policy, PolicyError> {
    let document = |(name, text): &(&str, &str)| Document {
        name: (*name).to_owned(),
        text: (*text).to_owned(),
    };
    Policy::parse(documents.iter().map(document).collect())
}

fn example() -> Policy {
    parse(&[(
        "example.toml",
        include_str!("../../../policies/example.toml"),
    )])
    .unwrap()
}

fn explain(policy: &Policy, source: &str, destination: &str, port: u16) -> Explanation {
    let (source, destination) = (&id(source), &id(destination));
    policy.explain(&Request {
        source,
        destination,
        port,
    })
}

#[test]
fn every_document_in_policies_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let parsed = parse(&[(&path.to_string_lossy(), &text)]);
        assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
    }
}

#[test]
fn what_no_rule_allows_is_denied() {
    let nothing = parse(&[]).unwrap();
    assert!(!explain(&nothing, "shop/sa/till", "shop/sa/database", 5432).allowed);
    assert_eq!(nothing.default_mode(), Mode::Require);
}

#[test]
fn the_example_decides_as_its_comments_say() {
    let policy = example();
    for (source, destination, port, allowed) in [
        ("shop/sa/till", "shop/sa/catalogue", 443, true),
        ("shop/sa/till", "shop/sa/catalogue", 8000, true),
        ("shop/sa/till", "shop/sa/catalogue", 8099, true),
        ("shop/sa/till", "shop/sa/catalogue", 8100, false),
        ("shop2/sa/till", "shop/sa/catalogue", 443, false),
        ("shop/sa/till", "shop/sa/database", 5432, true),
        ("shop/sa/other", "shop/sa/database", 5432, false),
        ("monitoring/sa/x", "shop/sa/catalogue", 9090, true),
        ("monitoring/sa/x", "shop/sa/database", 9090, false),
    ] {
        let explanation = explain(&policy, source, destination, port);
        assert_eq!(
            explanation.allowed, allowed,
            "{source} {destination} {port}"
        );
    }
}

#[test]
fn a_deny_wins_in_every_order_of_documents() {
    let allow = "[[allow]]\nsource = 'spiffe://example.org/ns/a'\ndestination = 'spiffe://example.org/ns/b'\n";
    let deny = "[[deny]]\nsource = 'spiffe://example.org/*'\ndestination = 'spiffe://example.org/ns/*'\nports = [80]\n";
    for documents in [
        [("1.toml", allow), ("2.toml", deny)],
        [("1.toml", deny), ("2.toml", allow)],
    ] {
        let policy = parse(&documents).unwrap();
        let denied = explain(&policy, "a", "b", 80);
        assert!(!denied.allowed);
        assert_eq!(denied.decided_by.unwrap().line, 1);
        assert_eq!(denied.also_matching.len(), 1);
        assert!(explain(&policy, "a", "b", 81).allowed);
    }
}

#[test]
fn an_explanation_names_document_and_line() {
    let decided = explain(&example(), "shop/sa/till", "shop/sa/database", 5432)
        .decided_by
        .unwrap();
    assert_eq!(
        (decided.document.as_str(), decided.line),
        ("example.toml", 25)
    );
}

#[test]
fn a_near_miss_says_in_what_it_differs() {
    let nearest = |source, destination, port| {
        explain(&example(), source, destination, port)
            .nearest
            .map(|near| near.differs_in)
    };
    assert_eq!(
        nearest("shop/sa/till", "shop/sa/database", 5433).unwrap(),
        ["ports"]
    );
    assert_eq!(
        nearest("shop/sa/other", "shop/sa/database", 5432).unwrap(),
        ["source"]
    );
    let elsewhere = SpiffeId::parse("spiffe://other.org/x").unwrap();
    let request = Request {
        source: &elsewhere,
        destination: &elsewhere,
        port: 1,
    };
    assert_eq!(example().explain(&request).nearest, None);
}

#[test]
fn the_most_specific_mode_decides_and_of_two_equals_the_stricter() {
    let addresses: [IpAddr; 1] = ["10.99.1.1".parse().unwrap()];
    let policy = example();
    assert_eq!(
        policy.mode_of(&id("shop/sa/till"), &addresses),
        Mode::Require
    );
    assert_eq!(policy.mode_of(&id("office/sa/x"), &addresses), Mode::Off);
    assert_eq!(policy.mode_of(&id("office/sa/x"), &[]), Mode::Permissive);
    let twice = "[[mode]]\nprefix = '10.99.0.0/16'\nmode = 'require'\n";
    let policy = parse(&[
        ("a.toml", include_str!("../../../policies/example.toml")),
        ("b.toml", twice),
    ]);
    assert_eq!(
        policy.unwrap().mode_of(&id("office/sa/x"), &addresses),
        Mode::Require
    );
}

#[test]
fn the_most_specific_records_decide_and_of_two_equals_what_asks_for_less() {
    let said = |workload: &str, mode| {
        format!("[[records]]\nworkload = 'spiffe://example.org/ns/{workload}'\nmode = '{mode}'\n")
    };
    let text = [
        said("*", "userspace"),
        said("shop/*", "auto"),
        said("shop/sa/till", "kernel"),
        said("shop/sa/both", "kernel"),
        said("shop/sa/both", "auto"),
    ];
    let policy = parse(&[("records.toml", &text.concat())]).unwrap();
    for (workload, expected) in [
        ("shop/sa/till", RecordsMode::Kernel),
        ("shop/sa/other", RecordsMode::Auto),
        ("shop/sa/both", RecordsMode::Auto),
        ("shop2/sa/till", RecordsMode::Userspace),
    ] {
        assert_eq!(
            policy.records_of(&id(workload)),
            Some(expected),
            "{workload}"
        );
    }
    assert_eq!(example().records_of(&id("shop/sa/till")), None);
}

#[test]
fn an_error_names_document_line_and_cause() {
    let rule = "[[allow]]\nsource = 'spiffe://td/a'\ndestination = 'spiffe://td/b'\n";
    for (text, expected) in [
        (
            format!("{rule}port = 1"),
            "policy x.toml line 4: unknown field `port`",
        ),
        (
            format!("\n{rule}ports = []"),
            "policy x.toml line 2: `ports` is empty",
        ),
        (
            format!("{rule}ports = [0]"),
            "policy x.toml line 1: \"0\" is not a port",
        ),
        (
            format!("{rule}ports = ['9-8']"),
            "line 1: \"9-8\" is not a port",
        ),
        (
            format!("{rule}ports = [70000]"),
            "line 4: a port, or a range",
        ),
        (
            rule.replace("td/b", "td/b*"),
            "line 1: \"spiffe://td/b*\" is not a SPIFFE ID",
        ),
        ("default_mode = 'strict'".to_owned(), "line 1: "),
        (
            "[[mode]]\nmode = 'off'".to_owned(),
            "line 1: a [[mode]] needs either",
        ),
        ("[[mode]".to_owned(), "line 1: "),
        (
            "[[records]]\nworkload = 'x'\nmode = 'kernel'".to_owned(),
            "line 1: \"x\" is not a SPIFFE ID",
        ),
        (
            "[[records]]\nworkload = 'spiffe://td/a'\nmode = 'ktls'".to_owned(),
            "line 3: unknown variant `ktls`",
        ),
    ] {
        let error = parse(&[("x.toml", &text)]).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    let default = ("1.toml", "default_mode = 'off'");
    let error = parse(&[default, ("2.toml", default.1)])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "policy 2.toml line 1: `default_mode` is said here and in 1.toml: say it once"
    );
}

#[test]
fn the_version_follows_the_content_and_not_the_order() {
    let (a, b) = (("a.toml", "default_mode = 'off'"), ("b.toml", ""));
    let version = |documents: &[(&str, &str)]| parse(documents).unwrap().version();
    assert_eq!(version(&[a, b]), version(&[b, a]));
    assert_ne!(version(&[a, b]), version(&[a]));
    assert_ne!(version(&[("a.toml", "")]), version(&[b]));
    assert_eq!(version(&[a]).to_string().len(), 16);
}

#[test]
fn a_folder_is_read_without_its_hidden_and_foreign_files() {
    let folder = tempfile::TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.toml", "default_mode = 'off'");
    write(".a.toml.swp.toml", "not toml");
    write("README.md", "# not toml");
    assert_eq!(
        kedge_policy::load(folder.path()).unwrap().default_mode(),
        Mode::Off
    );
    let gone = kedge_policy::load(&folder.path().join("gone"));
    assert!(matches!(gone, Err(PolicyError::Read { .. })));
}

const DIRECTORY: &str = r#"
    version = 3
    managed = ["10.0.0.0/8"]
    node = [
        { name = "a", addresses = ["192.0.2.1"] },
        { name = "old", addresses = ["192.0.2.9"], kedge = false },
    ]
    workload = [
        { uid = "u1", id = "spiffe://example.org/ns/shop/sa/till", node = "a", addresses = ["10.1.0.1", "fd00::1"], cgroup = "pods/till", ports = [8080] },
        { uid = "u2", id = "spiffe://example.org/ns/shop/sa/x", node = "old", addresses = ["10.2.0.1"], cgroup = "pods/x" },
    ]
    service = [
        { name = "both", addresses = ["10.9.0.1"], port = 80, endpoints = [{ uid = "u1", port = 1 }, { uid = "u2", port = 1 }] },
        { name = "old", addresses = ["10.9.0.2"], port = 80, endpoints = [{ uid = "u2", port = 1 }] },
        { name = "none", addresses = ["10.9.0.3"], port = 80 },
    ]
"#;

#[test]
fn each_class_is_compiled_as_documented() {
    let directory = Directory::parse(DIRECTORY).unwrap();
    let policy = example();
    let verdicts = compile(&directory, &policy, &NodeName::parse("a").unwrap());
    let table = [
        ("10.0.0.0/8", None, None),
        ("10.1.0.1/32", None, Some(Verdict::Capture)),
        ("fd00::1/128", None, Some(Verdict::Capture)),
        ("10.2.0.1/32", None, None),
        ("10.9.0.1/32", Some(80), Some(Verdict::Capture)),
        ("10.9.0.2/32", Some(80), None),
        ("10.9.0.3/32", Some(80), Some(Verdict::Unserved)),
    ];
    let classes = [
        (&verdicts.permissive, Verdict::Pass),
        (&verdicts.require, Verdict::Refuse),
    ];
    for (class, without_kedge) in classes {
        assert_eq!(class.len(), table.len());
        for (entry, (prefix, port, verdict)) in class.iter().zip(table) {
            assert_eq!(
                (entry.prefix, entry.port),
                (prefix.parse::<IpNet>().unwrap(), port)
            );
            assert_eq!(entry.verdict, verdict.unwrap_or(without_kedge), "{prefix}");
        }
    }
    assert_eq!(
        (verdicts.directory_version, verdicts.policy_version),
        (3, policy.version())
    );
    assert_eq!(verdicts.peers, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn only_this_nodes_workloads_get_a_class() {
    let directory = Directory::parse(DIRECTORY).unwrap();
    let verdicts = compile(&directory, &example(), &NodeName::parse("a").unwrap());
    let [till] = verdicts.workloads.as_slice() else {
        panic!("{:?}", verdicts.workloads)
    };
    assert_eq!(
        (till.cgroup.as_str(), till.mode),
        ("pods/till", Mode::Require)
    );
    assert_eq!(
        (till.addresses.len(), till.probe_ports.as_slice()),
        (2, &[8080][..])
    );
}

#[test]
fn explain_and_decide_never_disagree() {
    let policy = example();
    let names = [
        "shop/sa/till",
        "shop/sa/database",
        "shop/sa/catalogue",
        "monitoring/sa/x",
        "q",
    ];
    for (source, destination) in names.iter().flat_map(|s| names.iter().map(move |d| (s, d))) {
        for port in [1, 443, 5432, 8000, 9090, u16::MAX] {
            let (source, destination) = (&id(source), &id(destination));
            let request = Request {
                source,
                destination,
                port,
            };
            let (decision, explanation) = (policy.decide(&request), policy.explain(&request));
            assert_eq!(decision.allow, explanation.allowed);
            assert_eq!(decision.rule.is_some(), explanation.decided_by.is_some());
        }
    }
}
