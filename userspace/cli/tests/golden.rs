//! Goal: what `kedge` prints, as tables and as `--json`, changes only on purpose.
//!
//! `KEDGE_BLESS=1 cargo test -p kedge-cli --test golden` writes the files anew; read the diff.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use kedge_api::{
    AttestationMode, AttestationStatus, CaptureStatus, Diagnosis, DirectoryStatus, Event,
    EventKind, Feature, Features, Finding, Flow, FlowPhase, FlowRole, Flows, Link, LinkState,
    Links, Listener, ListenerRole, OwnResult, PeerResult, PolicyStatus, PolicyVersion, SealedBy,
    Socket, Sockets, Status, SuiteRecords, SvidStatus, Timestamp, TlsRole, Uncapturable,
    Unenforceable, Versions, WorkerStatus,
};
use kedge_cli::{command, render};
use kedge_model::{NodeName, Refusal, SpiffeId, Suite, TrustDomain};
use kedge_policy::{Document, Policy, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::PathBuf;

fn held(path: PathBuf, text: &str) {
    if std::env::var_os("KEDGE_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{} differs; it is now:\n{text}",
        path.display()
    );
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Holds the table and the JSON of one answer; the JSON reads back as the same answer.
fn both<T>(name: &str, answer: &T, table: fn(&T) -> String)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let json = render::json(answer);
    assert_eq!(&serde_json::from_str::<T>(&json).unwrap(), answer);
    held(golden(&format!("{name}.json")), &json);
    held(golden(&format!("{name}.txt")), &table(answer));
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://lab.kedge/{path}")).unwrap()
}

fn moment() -> Timestamp {
    Timestamp::from_unix_s(1_800_000_000)
}

fn unenforceable() -> Vec<Unenforceable> {
    vec![
        Unenforceable {
            uid: "web-1".to_owned(),
            id: id("ns/default/sa/web"),
            capabilities: vec!["CAP_BPF".to_owned(), "CAP_NET_RAW".to_owned()],
            unseen: 0,
        },
        Unenforceable {
            uid: "vm-1".to_owned(),
            id: id("ns/default/sa/vm"),
            capabilities: vec![],
            unseen: 3,
        },
    ]
}

#[test]
fn status() {
    let counters = [("flows.opened", 12), ("refused.denied", 1)];
    let programs = [("captured", 12), ("passed", 3)];
    let counters = counters
        .map(|(name, count)| (name.to_owned(), count))
        .into();
    let programs = programs
        .map(|(name, count)| (name.to_owned(), count))
        .into();
    let listener = |role, address: &str| Listener {
        role,
        address: address.parse().unwrap(),
    };
    let status = Status {
        node: NodeName::parse("a").unwrap(),
        trust_domain: TrustDomain::parse("lab.kedge").unwrap(),
        version: "0.1.0".to_owned(),
        pid: 4711,
        uptime_s: 3_700,
        svid: SvidStatus {
            id: id("kedge/node/a"),
            not_after: moment(),
            expires_in_s: 82_800,
        },
        directory: DirectoryStatus {
            version: 7,
            age_s: 65,
            nodes: 2,
            workloads: 5,
            services: 3,
        },
        policy: PolicyStatus {
            version: PolicyVersion(0xfeed),
            age_s: 5,
            rules: 4,
        },
        capture: CaptureStatus {
            generation: Some(1),
            counters: programs,
            uncapturable: vec![Uncapturable {
                uid: "db-1".to_owned(),
                id: id("ns/default/sa/db"),
                reason: "no cgroup pods/db".to_owned(),
            }],
            unenforceable: unenforceable(),
        },
        records: records(),
        attestation: AttestationStatus::default(),
        workers: vec![
            WorkerStatus {
                worker: 0,
                flows: 7,
                beat_age_ms: 12,
            },
            WorkerStatus {
                worker: 1,
                flows: 5,
                beat_age_ms: 8,
            },
        ],
        listeners: vec![
            listener(ListenerRole::Peer, "192.0.2.1:15443"),
            listener(ListenerRole::Capture, "[::]:15001"),
        ],
        counters,
    };
    both("status", &status, render::status);
}

#[test]
fn attestation_with_a_result_and_without() {
    let result = OwnResult {
        verifier: "verifier-1".to_owned(),
        issued: moment(),
        fresh_for_s: 240,
        policy: "aa".repeat(32),
        reset: 3,
        restart: 1,
        token: "a.b.c".to_owned(),
    };
    both("attest-result", &result, render::own_result);
    let peer = |standing: &str, verifier: Option<&str>, error: Option<&str>| PeerResult {
        peer: id("kedge/node/b"),
        standing: standing.to_owned(),
        verifier: verifier.map(str::to_owned),
        ak: None,
        policy: None,
        error: error.map(str::to_owned),
    };
    let status = AttestationStatus {
        mode: AttestationMode::Required,
        ak: Some("bb".repeat(32)),
        tpm_error: None,
        result: Some(result),
        result_error: None,
        peers: vec![
            peer("fresh", Some("verifier-1"), None),
            peer("none", None, Some("it shows no Attestation Result: no TPM")),
        ],
        counters: [("attestation.quotes".to_owned(), 2)].into(),
    };
    both("attest", &status, render::attestation);
    let without = AttestationStatus {
        mode: AttestationMode::Optional,
        tpm_error: Some("open the TPM: not to be reached".to_owned()),
        result_error: Some("no TPM: open the TPM".to_owned()),
        ..AttestationStatus::default()
    };
    both("attest-none", &without, render::attestation);
    both(
        "attest-off",
        &AttestationStatus::default(),
        render::attestation,
    );
}

fn records() -> Vec<SuiteRecords> {
    let records = |suite, by, reason: &str| SuiteRecords {
        suite,
        by,
        reason: reason.to_owned(),
    };
    let costs = "the kernel takes 82 % of our time in bulk, 104 % for 1 KiB there and back";
    vec![
        records(Suite::Aes256Gcm, SealedBy::KernelInBulk, costs),
        records(Suite::Aes128Gcm, SealedBy::Kernel, "as configured"),
        records(
            Suite::ChaCha20Poly1305,
            SealedBy::Userspace,
            "kTLS: ChaCha20-Poly1305: not taken: ENOENT",
        ),
    ]
}

#[test]
fn status_of_an_expired_node_without_capture() {
    let text = fs::read_to_string(golden("status.json")).unwrap();
    let mut status: Status = serde_json::from_str(&text).unwrap();
    status.svid.expires_in_s = -120;
    status.capture = CaptureStatus {
        generation: None,
        counters: [].into(),
        uncapturable: vec![],
        unenforceable: vec![],
    };
    both("status-expired", &status, render::status);
}

#[test]
fn links() {
    let up = Link {
        peer: id("kedge/node/b"),
        state: LinkState::Established,
        link_id: Some("00112233445566778899aabbccddeeff".to_owned()),
        role: TlsRole::Client,
        group: Some("X25519MLKEM768".to_owned()),
        tls_suite: Some("TLS13_AES_256_GCM_SHA384".to_owned()),
        flow_suite: Some(Suite::Aes256Gcm),
        age_s: 90,
        flows_opened: 10_000,
        flows_accepted: 3,
        identities: 2,
        handshakes_total: 1,
        last_error: None,
    };
    let failed = Link {
        peer: id("kedge/node/c"),
        state: LinkState::Failed,
        link_id: None,
        group: None,
        tls_suite: None,
        flow_suite: None,
        flows_opened: 0,
        flows_accepted: 0,
        identities: 0,
        handshakes_total: 0,
        last_error: Some("connect 192.0.2.3:15443: connection refused".to_owned()),
        ..up.clone()
    };
    both(
        "links",
        &Links {
            links: vec![up, failed],
        },
        render::links,
    );
    both("links-none", &Links { links: vec![] }, render::links);
}

#[test]
fn flows() {
    let opener = Flow {
        id: 17,
        worker: 0,
        role: FlowRole::Opener,
        phase: FlowPhase::Open,
        source: Some(id("ns/default/sa/client")),
        destination: Some(id("ns/default/sa/web")),
        client: "10.20.1.2:40000".parse().unwrap(),
        original_destination: "10.30.0.1:80".parse().unwrap(),
        endpoint: Some("10.20.2.2:8080".parse().unwrap()),
        peer: Some(id("kedge/node/b")),
        suite: Some(Suite::Aes256Gcm),
        bytes_sent: 2_048,
        bytes_received: 7 << 20,
        record_sent: 2,
        record_received: 449,
        key_generation_sent: 0,
        key_generation_received: 1,
        kernel_sends: true,
        kernel_receives: false,
        age_s: 61,
        idle_s: 1,
    };
    let unknown = Flow {
        id: 18,
        worker: 1,
        role: FlowRole::Local,
        phase: FlowPhase::Classifying,
        source: None,
        destination: None,
        client: "[fd20::1:2]:40001".parse().unwrap(),
        endpoint: None,
        peer: None,
        suite: None,
        ..opener.clone()
    };
    both(
        "flows",
        &Flows {
            flows: vec![opener, unknown],
            truncated: false,
        },
        render::flows,
    );
}

#[test]
fn explanations() {
    let text = include_str!("../../../policies/example.toml").to_owned();
    let policy = Policy::parse(vec![Document {
        name: "example.toml".to_owned(),
        text,
    }])
    .unwrap();
    let explain = |source: &str, destination: &str, port| {
        let id = |path: &str| SpiffeId::parse(&format!("spiffe://example.org/ns/{path}")).unwrap();
        let (source, destination) = (&id(source), &id(destination));
        policy.explain(&Request {
            source,
            destination,
            port,
        })
    };
    let allowed = explain("shop/sa/till", "shop/sa/database", 5432);
    both("explain-allowed", &allowed, render::explanation);
    let denied = explain("monitoring/sa/x", "shop/sa/database", 9090);
    both("explain-denied", &denied, render::explanation);
    let missed = explain("shop/sa/till", "shop/sa/database", 5433);
    both("explain-missed", &missed, render::explanation);
}

#[test]
fn features() {
    let feature = |name: &str, available, required, reason: &str| Feature {
        name: name.to_owned(),
        available,
        required,
        reason: reason.to_owned(),
    };
    let features = Features {
        kernel: "6.18.0".to_owned(),
        features: vec![
            feature("cgroup/connect4", true, true, "redirect connections"),
            feature(
                "ring buffer",
                false,
                true,
                "needed to report: Invalid argument",
            ),
            feature(
                "kTLS",
                false,
                false,
                "needed to seal in the kernel; records stay in userspace",
            ),
        ],
    };
    both("features", &features, render::features);
}

#[test]
fn sockets() {
    let sockets = Sockets {
        sockets: vec![Socket {
            uid: "b1946ac9".to_owned(),
            id: id("ns/default/sa/client"),
            local: "10.20.1.2:40000".parse().unwrap(),
            remote: "10.20.2.3:5432".parse().unwrap(),
            pid: 4711,
            command: "postgres".to_owned(),
        }],
        unseen: 0,
        truncated: false,
    };
    both("sockets", &sockets, render::sockets);
}

#[test]
fn diagnosis() {
    let diagnosis = Diagnosis {
        findings: vec![
            Finding::ok("route", "169.254.76.0/22", "leads to this node itself"),
            Finding::warn(
                "programs",
                "cil_sock4_connect (id 7) at /sys/fs/cgroup",
                "runs before kedge_connect4",
                "none if it is meant to be there",
            ),
            Finding::fail(
                "capture",
                "/sys/fs/cgroup/kubepods/pod7",
                "IPv4: no route from it to 169.254.76.0/22",
                "give it one",
            ),
        ],
    };
    assert!(diagnosis.has_failed());
    both("diagnosis", &diagnosis, render::diagnosis);
}

#[test]
fn events() {
    let refused = Event {
        source: Some(id("ns/default/sa/client")),
        destination: Some(id("ns/default/sa/db")),
        client: Some("10.20.1.2:40000".parse().unwrap()),
        original_destination: Some("10.30.0.2:5432".parse().unwrap()),
        peer: Some(id("kedge/node/b")),
        flow: Some(17),
        decided_by: Some(Versions {
            directory: 7,
            policy: PolicyVersion(0xfeed),
        }),
        ..Event::refused(41, moment(), Refusal::Denied)
    };
    both("event-refused", &refused, render::event);
    let loaded = Event::new(
        42,
        moment(),
        EventKind::DirectoryChanged,
        "directory version 8 is in force",
    );
    both("event-directory", &loaded, render::event);
    assert_eq!(render::json_line(&loaded).lines().count(), 1);
}

#[test]
fn the_documented_command_line_is_the_real_one() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    held(page, &command::markdown());
}
