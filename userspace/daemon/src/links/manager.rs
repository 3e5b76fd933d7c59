//! Makes links: dials when a flow needs one, answers peers that dial, renews before the end.

use crate::attestation::{Disbelief, EndedFlows};
use crate::doorstep::{Doorstep, Source};
use crate::events::Events;
use crate::limits::{
    ATTESTATION_AHEAD, BACKOFF_MAX, BACKOFF_MIN, DIAL_TIMEOUT, HANDSHAKES_INBOUND, LINK_LIFETIME,
    RENEWAL_BACKOFF_MAX,
};
use crate::links::control::{Context, Control, ControlError, Origin};
use crate::links::link::{Command, Link};
use crate::links::proof::{Lost, Proof};
use crate::links::table::{Demand, Links};
use crate::world::SharedWorld;
use kedge_api::AttestationMode;
use kedge_attest::Sha256;
use kedge_identity::{NodeSvid, Trust};
use kedge_link::{ClientStart, InstanceId, LinkConfig, LinkError, LinkId, Role, Session, Start};
use kedge_model::{NodeAddr, NodeName, SpiffeId, Suite};
use kedge_record::Rekey;
use kedge_sys::socket::Dial;
use rand::random;
use rustls_pki_types::UnixTime;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

/// A connection to the peer port that began like TLS, with what was read of it.
pub struct Stranger {
    pub from: SocketAddr,
    pub stream: std::net::TcpStream,
    pub prefix: Vec<u8>,
}

/// What changes who we are, or whom we believe.
pub enum Credential {
    Svid(NodeSvid),
    Trust(Trust),
}

/// Owns everything that making a link needs. One task on the control runtime.
pub struct Manager {
    links: Arc<Links>,
    world: SharedWorld,
    events: Events,
    suites: Vec<Suite>,
    rekey: Rekey,
    instance: InstanceId,
    svid: NodeSvid,
    config: Arc<LinkConfig>,
    not_after: SystemTime,
    dials: HashMap<NodeName, Dialling>,
    pauses: JoinSet<NodeName>,
    attempts: JoinSet<(NodeName, Result<(), ControlError>)>,
    handshakes: Doorstep,
    begun: u64,
    /// Links that began no later show an SVID that has been replaced.
    outdated: u64,
    /// A new SVID that waits for a Result about its key, and until when.
    next_svid: Option<(NodeSvid, SystemTime)>,
    /// Whom we believed when the links' Results were last looked at.
    judged: u64,
}

/// How dialling one node stands.
#[derive(Default)]
struct Dialling {
    /// A dial, or the pause before it.
    under_way: bool,
    failures: u32,
    dial_from: Option<Instant>,
    /// Not before `dial_from`.
    renew_from: Option<Instant>,
}

impl Dialling {
    /// Twice the pause after each failure, up to a bound; shorter by up to half, by chance.
    fn failed(&mut self, now: Instant, shortened: f64) {
        let pause = BACKOFF_MIN * 2u32.saturating_pow(self.failures.min(16));
        let until = |bound| Some(now + pause.min(bound).mul_f64(1.0 - shortened / 2.0));
        self.dial_from = until(BACKOFF_MAX);
        self.renew_from = until(RENEWAL_BACKOFF_MAX);
        self.failures += 1;
    }
}

impl Manager {
    pub fn new(
        (links, world, events): (Arc<Links>, SharedWorld, Events),
        svid: NodeSvid,
        (suites, rekey): (Vec<Suite>, Rekey),
    ) -> Result<Self, LinkError> {
        let instance = InstanceId(random());
        let config = LinkConfig::new(&svid, &suites, instance)?.rekeying(rekey);
        let config = config
            .trusting(links.proofs.trust())
            .attesting(links.attestation.attesting());
        Ok(Self {
            links,
            world,
            events,
            not_after: system_time(svid.not_after()),
            svid,
            config: Arc::new(config),
            suites,
            rekey,
            instance,
            dials: HashMap::new(),
            pauses: JoinSet::new(),
            attempts: JoinSet::new(),
            handshakes: Doorstep::new(HANDSHAKES_INBOUND),
            begun: 0,
            outdated: 0,
            next_svid: None,
            judged: 0,
        })
    }

    /// Serves until the daemon ends.
    pub async fn run(
        mut self,
        mut demands: mpsc::Receiver<Demand>,
        mut strangers: mpsc::Receiver<Stranger>,
        mut credentials: mpsc::Receiver<Credential>,
    ) {
        let mut due = tokio::time::interval(Duration::from_secs(1));
        let mut changes = self.world.changes();
        loop {
            tokio::select! {
                Ok(()) = changes.changed() => self.part(),
                Some(demand) = demands.recv() => self.demand(demand),
                Some(stranger) = strangers.recv() => self.answer(stranger),
                Some(credential) = credentials.recv() => self.take(credential),
                Some(Ok(node)) = self.pauses.join_next() => self.paused(node),
                Some(Ok((node, result))) = self.attempts.join_next() => self.ended(node, result),
                _ = due.tick() => {
                    self.use_next_svid();
                    self.renew_due();
                    self.expire();
                    self.judge_again();
                }
                else => return,
            }
        }
    }

    fn demand(&mut self, demand: Demand) {
        match demand {
            Demand::Open(node) if self.links.current(&node).is_some() => {}
            Demand::Open(node) => self.dial(node, None),
            Demand::Renew(link) => self.renew(&link),
        }
    }

    /// Dials unless that is under way; not before the pause after a failure is over. A renewal that
    /// comes too early is left to the next [`Manager::renew_due`].
    fn dial(&mut self, node: NodeName, renews: Option<LinkId>) {
        let dialling = self.dials.entry(node.clone()).or_default();
        let is_ahead = |at: &Instant| Instant::now() < *at;
        if dialling.under_way
            || (renews.is_some() && dialling.renew_from.filter(is_ahead).is_some())
        {
            return;
        }
        dialling.under_way = true;
        if let Some(at) = dialling.dial_from.filter(is_ahead) {
            self.pauses.spawn(async move {
                sleep_until(at.into()).await;
                node
            });
            return;
        }
        let context = self.context();
        let config = Arc::clone(&self.config);
        self.attempts.spawn(async move {
            let result = establish(context, &config, &node, renews).await;
            (node, result)
        });
    }

    /// What counts is who we are and whom we believe now, and whether there is a link by now.
    fn paused(&mut self, node: NodeName) {
        self.dials.entry(node.clone()).or_default().under_way = false;
        self.demand(Demand::Open(node));
    }

    fn ended(&mut self, node: NodeName, result: Result<(), ControlError>) {
        let dialling = self.dials.entry(node.clone()).or_default();
        dialling.under_way = false;
        match result {
            Ok(()) => *dialling = Dialling::default(),
            Err(error) => {
                dialling.failed(
                    Instant::now(),
                    f64::from(random::<u16>()) / f64::from(u16::MAX),
                );
                self.events.link_failed(&node, &error);
                self.links.failed(&node, crate::events::chain(&error));
            }
        }
    }

    /// Answers a peer that dials us.
    fn answer(&mut self, stranger: Stranger) {
        let from = stranger.from;
        let source = Source::of(from.ip(), &self.world.load());
        let Some(place) = self.handshakes.admit(source) else {
            return self.events.stranger_refused(from, &ControlError::Crowded);
        };
        let started = TcpStream::from_std(stranger.stream)
            .map_err(ControlError::from)
            .and_then(|stream| Ok((stream, Session::server(&self.config, start())?)));
        match started {
            Ok((stream, session)) => {
                let origin = Origin::Accepted { from, place };
                let control = Control::new(self.context(), session, stream, origin);
                tokio::spawn(async move { control.run(&stranger.prefix).await });
            }
            Err(error) => self.events.stranger_refused(from, &error),
        }
    }

    fn take(&mut self, credential: Credential) {
        // What failed may work now.
        self.dials.retain(|_, dialling| dialling.under_way);
        match credential {
            Credential::Svid(svid) => self.prepare(svid),
            Credential::Trust(trust) => self.believe(trust),
        }
    }

    /// Links under a new key show a Result about that key: it is asked for first.
    fn prepare(&mut self, svid: NodeSvid) {
        let attestation = &self.links.attestation;
        let until = match attestation.mode() {
            AttestationMode::Off => return self.renew_all(svid),
            AttestationMode::Optional => SystemTime::now() + ATTESTATION_AHEAD,
            // Nobody takes the new one without a Result, and the old one until its end.
            AttestationMode::Required => self.not_after,
        };
        let trust = self.links.proofs.trust();
        attestation.use_node_key(Sha256(svid.key_hash()), &trust);
        self.next_svid = Some((svid, until));
        self.use_next_svid();
    }

    fn use_next_svid(&mut self) {
        let is_due = |(svid, until): &mut (NodeSvid, SystemTime)| {
            let state = self.links.attestation.own().state();
            state.held(Sha256(svid.key_hash())).is_some() || SystemTime::now() >= *until
        };
        if let Some((svid, _)) = self.next_svid.take_if(is_due) {
            self.renew_all(svid);
        }
    }

    /// New certificates: every link is made anew under them before the old one is erased, also one
    /// whose handshake is under way, and one whose peer does not believe the new ones yet.
    fn renew_all(&mut self, svid: NodeSvid) {
        match self.link_config(&svid) {
            Ok(config) => {
                self.config = Arc::new(config);
                self.not_after = system_time(svid.not_after());
                self.svid = svid;
                self.events.svid_reloaded(self.not_after);
                self.outdated = self.begun;
                self.renew_due();
            }
            Err(error) => self.events.svid_failed(&error),
        }
    }

    /// Another bundle or revocation list: it counts for what was proven before, too.
    fn believe(&mut self, trust: Trust) {
        self.links.attestation.forbid(&trust);
        let lost = self.links.proofs.believe(trust, UnixTime::now());
        match self.link_config(&self.svid) {
            Ok(config) => self.config = Arc::new(config),
            Err(error) => self.events.svid_failed(&error),
        }
        self.close(&lost);
    }

    fn expire(&self) {
        let now = UnixTime::now();
        let has_renewed = |proof: &Proof| {
            let current = self.links.current(proof.peer.name());
            current.is_some_and(|link| link.proof.peer.not_after() > now)
        };
        self.close(&self.links.proofs.expire(now, has_renewed));
    }

    /// Attestation Results end, and whoever issued them may not be believed any more. Flows rest on
    /// their own link's Result, or on a later one that their node has shown.
    fn judge_again(&mut self) {
        let attestation = self.links.attestation.clone();
        if !attestation.is_required() {
            return;
        }
        let judge = attestation.judge();
        let generation = judge.generation();
        let anew = std::mem::replace(&mut self.judged, generation) != generation;
        let check = |proof: &Proof| match proof.attested() {
            Some(held) if anew => judge
                .check_signer(&proof.peer, &held)
                .and_then(|()| judge.check_time(&held)),
            Some(held) => judge.check_time(&held),
            None => Ok(()),
        };
        for link in self.links.all() {
            if let Err(error) = check(&link.proof) {
                self.links.remove(&link);
                link.command(Command::Disbelieve(error.because(link.unattested())));
            }
        }
        let mut any = false;
        for proof in self.links.proofs.all() {
            let Err(error) = check(&proof) else { continue };
            any |= self.ends_flows(&proof, &error) && proof.withdraw(error.refusal());
        }
        if any {
            self.world.decide_again();
        }
    }

    /// What has only ended may be kept, and counts on while its node has shown a later Result.
    fn ends_flows(&self, proof: &Proof, error: &Disbelief) -> bool {
        let keeps = self.links.attestation.settings().flows == EndedFlows::Keep;
        let is_over = matches!(error, Disbelief::Ended(_));
        !is_over || !(keeps || self.links.current(proof.peer.name()).is_some())
    }

    /// Closes links whose peers are not believed any more; workers reset what rests on them.
    fn close(&self, lost: &[Lost]) {
        for (proof, error) in lost {
            let links = self.links.all();
            for link in links.iter().filter(|link| Arc::ptr_eq(&link.proof, proof)) {
                // From now on nothing opens on it; its control connection says why it ends.
                self.links.remove(link);
                link.command(Command::Distrust(error.clone()));
            }
        }
        if !lost.is_empty() {
            self.world.decide_again();
        }
    }

    /// Closes links to nodes that the directory does not have any more, or without kedge.
    fn part(&self) {
        let world = self.world.load();
        for link in self.links.all() {
            if !world.directory.has_kedge(&link.peer) {
                self.links.remove(&link);
                link.command(Command::Part(link.peer.clone()));
            }
        }
    }

    fn renew_due(&mut self) {
        for link in self.links.all() {
            let is_old = link.established_at.elapsed() >= lifetime(&link);
            if is_old || link.begun <= self.outdated {
                self.renew(&link);
            }
        }
    }

    /// The TLS client of a link makes its successor; the other side asks for it.
    fn renew(&mut self, link: &Arc<Link>) {
        if !self.links.is_current(link) {
            return;
        }
        match link.role {
            Role::TlsClient => self.dial(link.peer.clone(), Some(link.id)),
            Role::TlsServer => link.command(Command::AskRenewal),
        }
    }

    fn link_config(&self, svid: &NodeSvid) -> Result<LinkConfig, LinkError> {
        let config = LinkConfig::new(svid, &self.suites, self.instance)?.rekeying(self.rekey);
        Ok(config
            .trusting(self.links.proofs.trust())
            .attesting(self.links.attestation.attesting()))
    }

    /// For a link that begins now.
    fn context(&mut self) -> Context {
        self.begun += 1;
        Context {
            links: Arc::clone(&self.links),
            world: self.world.clone(),
            events: self.events.clone(),
            not_after: self.not_after,
            node_key: Sha256(self.svid.key_hash()),
            begun: self.begun,
        }
    }
}

/// Dials `node` and waits until the link stands; it then lives on in a task of its own.
async fn establish(
    context: Context,
    config: &Arc<LinkConfig>,
    node: &NodeName,
    renews: Option<LinkId>,
) -> Result<(), ControlError> {
    let peer = SpiffeId::node(&context.world.load().trust_domain, node);
    let stream = connect(&context.world, node).await?;
    let dial = ClientStart {
        start: start(),
        expected_peer: peer,
        renews,
    };
    let session = Session::client(config, dial)?;
    let (waiting, established) = oneshot::channel();
    let control = Control::new(context, session, stream, Origin::Dialled(waiting));
    tokio::spawn(async move { control.run(&[]).await });
    established
        .await
        .unwrap_or_else(|_| Err(LinkError::ConnectionLost.into()))
}

/// Connects to the first address of `node` that answers.
async fn connect(world: &SharedWorld, node: &NodeName) -> Result<TcpStream, ControlError> {
    let addresses: Vec<NodeAddr> = match world.load().directory.node(node) {
        Some(known) if known.kedge => known.peer_addresses().collect(),
        _ => return Err(ControlError::UnknownNode(node.clone())),
    };
    let mut last = ControlError::UnknownNode(node.clone());
    for address in addresses {
        let to = address.socket_addr();
        match dial(to).await {
            Ok(stream) => return Ok(stream),
            Err(source) => last = ControlError::Dial { to, source },
        }
    }
    Err(last)
}

/// Connects with a bound.
pub async fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(Dial::new(to)?.start()?)?;
    connected(&stream).await?;
    Ok(stream)
}

/// Waits until a connect() that is under way has ended.
pub async fn connected(stream: &TcpStream) -> io::Result<()> {
    timeout(DIAL_TIMEOUT, stream.writable())
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn start() -> Start {
    Start {
        now: Instant::now(),
        unix_time: UnixTime::now(),
        random: random(),
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// Jittered by the link's own id, so that a node's links are not all renewed at once.
fn lifetime(link: &Link) -> Duration {
    let jitter = 0.9 + f64::from(link.id.0[0]) / 255.0 / 5.0;
    LINK_LIFETIME.mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_five_seconds_for_a_first_link_and_to_a_minute_for_a_renewal() {
        let now = Instant::now();
        let pauses = |failures, shortened| {
            let mut dialling = Dialling::default();
            for _ in 0..failures {
                dialling.failed(now, shortened);
            }
            [dialling.dial_from, dialling.renew_from]
                .map(|at| (at.expect("a failure") - now).as_millis())
        };
        assert_eq!(pauses(1, 0.0), [100, 100]);
        assert_eq!(pauses(6, 0.0), [3_200, 3_200]);
        assert_eq!(pauses(7, 0.0), [5_000, 6_400]);
        assert_eq!(pauses(11, 0.0), [5_000, 60_000]);
        assert_eq!(pauses(1_000, 1.0), [2_500, 30_000]);
    }
}
