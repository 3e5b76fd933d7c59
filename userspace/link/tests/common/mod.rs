//! Authorities, nodes and hostile peers for the scenarios of this folder.
#![allow(dead_code, reason = "each scenario file uses its part")]

pub mod foreign;
pub mod formulas;

use kedge_identity::{Ca, NodeSvid};
use kedge_link::testing::{Outcome, exchange};
use kedge_link::{
    ClientStart, Established, InstanceId, LinkConfig, LinkError, LinkId, Session, SessionEvent,
    Start,
};
use kedge_model::{SpiffeId, Suite, TrustDomain};
use rustls_pki_types::UnixTime;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// A trust domain's CA, its files gone with it.
pub struct Authority {
    pub ca: Ca,
    _dir: tempfile::TempDir,
}

impl Authority {
    pub fn new(trust_domain: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let trust_domain = TrustDomain::parse(trust_domain).expect("literal");
        let ca = Ca::init(&dir.path().join("ca"), &trust_domain, today()).expect("a new CA");
        Self { ca, _dir: dir }
    }

    pub fn node_id(&self, name: &str) -> SpiffeId {
        let domain = self.ca.trust_domain();
        SpiffeId::parse(&format!("spiffe://{domain}/kedge/node/{name}")).expect("literal")
    }

    /// The node's SVID for a day, with `bundle` as its anchors.
    pub fn svid(&self, name: &str, bundle: &str) -> NodeSvid {
        let id = self.node_id(name);
        let issued = self.ca.issue(&id, DAY, today()).expect("a leaf");
        let pem = [
            issued.certificate_pem.as_bytes(),
            issued.key_pem.as_bytes(),
            bundle.as_bytes(),
        ];
        NodeSvid::parse(pem, &id, today()).expect("our own CA's leaf")
    }

    pub fn config(&self, name: &str) -> Arc<LinkConfig> {
        self.config_with(name, &Suite::ALL, self.ca.bundle_pem())
    }

    pub fn config_with(&self, name: &str, suites: &[Suite], bundle: &str) -> Arc<LinkConfig> {
        let instance = InstanceId([name.as_bytes()[0]; 16]);
        let svid = self.svid(name, bundle);
        Arc::new(LinkConfig::new(&svid, suites, instance).expect("a usable key"))
    }
}

/// A fixed day, so that no test depends on when it runs.
pub fn today() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_790_000_000))
}

pub fn start(now: Instant, random: u8) -> Start {
    Start {
        now,
        unix_time: today(),
        random: [random; 32],
    }
}

pub fn dial(now: Instant, expected_peer: &SpiffeId, renews: Option<LinkId>) -> ClientStart {
    ClientStart {
        start: start(now, 0xc1),
        expected_peer: expected_peer.clone(),
        renews,
    }
}

/// Two established sessions and their keys.
pub struct Pair {
    pub now: Instant,
    pub client: Session,
    pub server: Session,
    pub at_client: Established,
    pub at_server: Established,
}

impl Pair {
    /// Node `a` dials node `b`.
    pub fn new() -> Self {
        let authority = Authority::new("lab.kedge");
        Self::between(&authority.config("a"), &authority.config("b"), None)
    }

    pub fn between(a: &Arc<LinkConfig>, b: &Arc<LinkConfig>, renews: Option<LinkId>) -> Self {
        let now = Instant::now();
        let (mut client, mut server) = sessions(a, b, renews, now);
        let [at_client, at_server] = exchange(&mut client, &mut server, now);
        let [at_client, at_server] = [at_client, at_server].map(established);
        Self {
            now,
            client,
            server,
            at_client,
            at_server,
        }
    }

    /// Lets both sides read what the other has sent; the events at client and server.
    pub fn exchange(&mut self) -> [Vec<SessionEvent>; 2] {
        exchange(&mut self.client, &mut self.server, self.now).map(|outcome| {
            outcome.result.expect("both sides are honest");
            outcome.events
        })
    }
}

pub fn sessions(
    a: &Arc<LinkConfig>,
    b: &Arc<LinkConfig>,
    renews: Option<LinkId>,
    now: Instant,
) -> (Session, Session) {
    let client = Session::client(a, dial(now, b.id(), renews)).expect("a session");
    let server = Session::server(b, start(now, 0x5e)).expect("a session");
    (client, server)
}

/// The error of each side when `a` dials `b`.
pub fn refusals(a: &Arc<LinkConfig>, b: &Arc<LinkConfig>) -> [Option<LinkError>; 2] {
    let now = Instant::now();
    let (mut client, mut server) = sessions(a, b, None, now);
    exchange(&mut client, &mut server, now).map(|outcome| {
        assert!(outcome.events.is_empty(), "nothing was established");
        outcome.result.err()
    })
}

fn established(outcome: Outcome) -> Established {
    outcome.result.expect("both sides are honest");
    match outcome.events.into_iter().next() {
        Some(SessionEvent::Established(established)) => *established,
        _ => panic!("the first event is Established"),
    }
}
