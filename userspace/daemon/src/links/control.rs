//! One control connection: moves bytes between its socket and its session, and does what either
//! side asks for. One task a link, on the control runtime.

use crate::attestation::Disbelief;
use crate::doorstep::Place;
use crate::events::Events;
use crate::limits::{
    ATTESTATION_TIMEOUT, CONTROL_READ_BYTES, HANDSHAKES_INBOUND, LINK_COMMANDS, LINK_DRAIN,
};
use crate::links::attested::{Attested, Next, refused};
use crate::links::link::{Command, Link};
use crate::links::table::{Demand, Links};
use crate::world::SharedWorld;
use kedge_attest::NodeKey;
use kedge_identity::SvidError;
use kedge_link::wire::{Attesting, RejectTarget, Shown, Verdict};
use kedge_link::{Established, Handle, LinkError, PeerUnauthenticated, Session, SessionEvent};
use kedge_model::{IdKind, NodeName, Refusal, SpiffeId};
use kedge_sys::socket::reset_on_close;
use rustls_pki_types::UnixTime;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

/// Why a control connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("control connection")]
    Socket(#[from] io::Error),
    #[error("dial {to}: {source}")]
    Dial { to: SocketAddr, source: io::Error },
    #[error(
        "node {0} is not in our directory, or is there without kedge: add it, or wait for the directory to catch up"
    )]
    UnknownNode(NodeName),
    #[error("the peer's certificate has expired: issue a new one there: `kedge ca issue`")]
    Expired,
    #[error("our own certificate has expired: issue a new one: `kedge ca issue`")]
    OursExpired,
    #[error("the peer is no longer believed: {0}")]
    Distrusted(#[source] SvidError),
    #[error("attestation of the peer: {0}")]
    Disbelieved(#[source] Disbelief),
    #[error("the peer does not take us for attested: {}: {text}", refusal.label())]
    Unbelieved { refusal: Refusal, text: String },
    #[error("attestation: not settled within {} s", ATTESTATION_TIMEOUT.as_secs())]
    AttestationTimedOut,
    #[error(
        "handshake: given up for newer ones, since {HANDSHAKES_INBOUND} were under way: look at who sends them"
    )]
    Crowded,
}

impl ControlError {
    /// Short, stable name: a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Link(error) => error.label(),
            Self::Socket(_) | Self::Dial { .. } => "unreachable",
            Self::UnknownNode(_) => "unknown-node",
            Self::Expired => "certificate-expired",
            Self::OursExpired => "our-certificate-expired",
            Self::Distrusted(error) => error.label(),
            Self::Disbelieved(error) => error.label(),
            Self::Unbelieved { refusal, .. } => refusal.label(),
            Self::AttestationTimedOut => "attestation-timed-out",
            Self::Crowded => "crowded",
        }
    }

    /// What an operator can do. Most errors of a handshake say it themselves.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Dial { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                "start kedged on that node, or correct its `peer_port` in the directory"
            }
            Self::Dial { .. } | Self::Socket(_) | Self::Link(LinkError::TimedOut) => {
                "see that the node is up, that kedged runs there, and that no firewall drops its \
                 peer port; `kedge link list` shows whether it lasts"
            }
            Self::Link(LinkError::PeerUnauthenticated(PeerUnauthenticated::Svid(error))) => {
                error.remedy()
            }
            Self::Distrusted(error) => error.remedy(),
            Self::Disbelieved(error) => error.remedy(),
            Self::Unbelieved { .. } => {
                "see `kedge attest status` on this node: it says why there is no better Result"
            }
            Self::AttestationTimedOut => {
                "see `kedge attest status` on both nodes: a TPM or a Verifier keeps one waiting"
            }
            _ => "the cause names what to do; `kedge link list` shows whether it lasts",
        }
    }
}

/// Who waits for the link to be established, until it is.
pub enum Origin {
    /// We dialled; the manager waits for the result.
    Dialled(oneshot::Sender<Result<(), ControlError>>),
    /// A peer dialled from there, and has its place among the unfinished handshakes.
    Accepted { from: SocketAddr, place: Place },
}

impl Origin {
    /// Until somebody else needs this handshake's place.
    async fn crowded_out(origin: &mut Option<Self>) {
        match origin {
            Some(Self::Accepted { place, .. }) => place.lost().await,
            _ => std::future::pending().await,
        }
    }
}

/// What a control connection has of its manager.
#[derive(Clone)]
pub struct Context {
    pub links: Arc<Links>,
    pub world: SharedWorld,
    pub events: Events,
    /// The end of our own SVID.
    pub not_after: SystemTime,
    /// The key of our own SVID.
    pub node_key: NodeKey,
    /// The place of this link among all that were dialled or taken.
    pub begun: u64,
}

/// Never, where nothing is shown.
async fn own_changed(attested: &mut Option<Attested>) {
    match attested {
        Some(attested) => attested.own_changed().await,
        None => std::future::pending().await,
    }
}

pub struct Control {
    context: Context,
    session: Session,
    stream: TcpStream,
    commands: mpsc::Receiver<Command>,
    sender: mpsc::Sender<Command>,
    origin: Option<Origin>,
    link: Option<Arc<Link>>,
    attested: Option<Attested>,
    /// Whether flows may be opened on the link.
    in_use: bool,
    out: Vec<u8>,
    erase_at: Option<Instant>,
    closed: bool,
}

impl Control {
    pub fn new(context: Context, session: Session, stream: TcpStream, origin: Origin) -> Self {
        let (sender, commands) = mpsc::channel(LINK_COMMANDS);
        Self {
            context,
            session,
            stream,
            commands,
            sender,
            origin: Some(origin),
            link: None,
            attested: None,
            in_use: false,
            out: Vec::new(),
            erase_at: None,
            closed: false,
        }
    }

    /// Runs the link from its first byte to its end. `prefix` was read before it was known that
    /// this is a control connection.
    pub async fn run(mut self, prefix: &[u8]) {
        let result = self.drive(prefix).await;
        // What is left tells the peer why: an alert, or close_notify.
        let _ = self.transmit().await;
        if let Some(link) = self.link.take() {
            self.context.links.remove(&link);
            if self.in_use {
                self.context.events.link_down(&link, result.as_ref().err());
            }
        }
        let Some(origin) = self.origin.take() else {
            return;
        };
        let error = result
            .err()
            .unwrap_or_else(|| LinkError::ConnectionLost.into());
        match origin {
            // The manager has gone: the daemon is ending.
            Origin::Dialled(waiting) => drop(waiting.send(Err(error))),
            Origin::Accepted { from, .. } => self.context.events.stranger_refused(from, &error),
        }
    }

    async fn drive(&mut self, prefix: &[u8]) -> Result<(), ControlError> {
        let mut read = vec![0; CONTROL_READ_BYTES];
        self.input(prefix)?;
        while !self.closed {
            self.transmit().await?;
            let deadline = self.deadline();
            tokio::select! {
                () = Origin::crowded_out(&mut self.origin) => return self.give_up(),
                count = self.stream.read(&mut read) => match count? {
                    0 => {
                        self.session.handle_end()?;
                        return Ok(());
                    }
                    count => self.input(&read[..count])?,
                },
                Some(command) = self.commands.recv() => self.obey(command)?,
                () = own_changed(&mut self.attested) => self.show()?,
                () = tokio::time::sleep_until(deadline.into()) => self.timeout()?,
            }
        }
        Ok(())
    }

    /// Leaves nothing behind in the kernel either.
    fn give_up(&self) -> Result<(), ControlError> {
        reset_on_close(&self.stream)?;
        Err(ControlError::Crowded)
    }

    fn input(&mut self, bytes: &[u8]) -> Result<(), ControlError> {
        if !bytes.is_empty() {
            self.session.handle_input(Instant::now(), bytes)?;
        }
        while let Some(event) = self.session.poll_event() {
            self.handle(event)?;
        }
        Ok(())
    }

    async fn transmit(&mut self) -> io::Result<()> {
        while self.session.poll_transmit(&mut self.out) {
            self.stream.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// The nearest of: the handshake's end, an epoch's end, the drained link's end, the end of
    /// the certificates.
    fn deadline(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(60);
        let epoch = self.link.as_ref().and_then(|link| link.expire_secrets());
        let expiry = self.link.as_ref().map(|link| {
            let left = link
                .not_after
                .duration_since(SystemTime::now())
                .unwrap_or_default();
            Instant::now() + left
        });
        let attested = self.attested.as_ref().and_then(Attested::deadline);
        let session = self.session.poll_timeout();
        [session, epoch, self.erase_at, expiry, attested]
            .into_iter()
            .flatten()
            .fold(far, Instant::min)
    }

    fn timeout(&mut self) -> Result<(), ControlError> {
        let now = Instant::now();
        self.session.handle_timeout(now)?;
        let waits = self.attested.as_ref().and_then(Attested::deadline);
        if waits.is_some_and(|until| now >= until) {
            self.session.close();
            return Err(ControlError::AttestationTimedOut);
        }
        if self.erase_at.is_some_and(|at| now >= at) {
            self.session.close();
            self.closed = true;
        }
        let expired = |link: &Arc<Link>| SystemTime::now() >= link.not_after;
        if self.link.as_ref().is_some_and(expired) {
            self.session.close();
            let ours = SystemTime::now() >= self.context.not_after;
            return Err(match ours {
                true => ControlError::OursExpired,
                false => ControlError::Expired,
            });
        }
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Result<(), ControlError> {
        match command {
            Command::Prove {
                source,
                destination,
            } => {
                self.announce(&source)?;
                self.session.request(&destination)?;
            }
            Command::AskRenewal => self.session.ask_renewal()?,
            Command::Drain => self.drain()?,
            Command::Part(node) => {
                self.session.close();
                return Err(ControlError::UnknownNode(node));
            }
            Command::Distrust(error) => {
                self.session.close();
                return Err(ControlError::Distrusted(error));
            }
            Command::Disbelieve(error) => return self.disbelieve(error),
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), ControlError> {
        if self.erase_at.is_none() {
            self.session.drain()?;
            self.begin_drain();
        }
        Ok(())
    }

    fn begin_drain(&mut self) {
        if let Some(link) = &self.link {
            link.set_draining();
        }
        self.erase_at
            .get_or_insert_with(|| Instant::now() + LINK_DRAIN);
    }

    fn handle(&mut self, event: SessionEvent) -> Result<(), ControlError> {
        match event {
            SessionEvent::Established(established) => self.establish(*established)?,
            SessionEvent::Announced { handle, id, .. } => self.consume_announced(handle, id)?,
            SessionEvent::Requested { id } => self.consume_request(&id)?,
            SessionEvent::Accepted { handle } => {
                self.update(|known| known.accepted_by_peer(handle));
            }
            SessionEvent::Rejected { target, refusal } => self.consume_rejection(target, refusal),
            SessionEvent::RenewalAsked => self.renew(),
            SessionEvent::Draining => self.begin_drain(),
            SessionEvent::Shown(shown) => self.consume_shown(&shown)?,
            SessionEvent::Verdict(verdict) => self.consume_verdict(verdict)?,
            SessionEvent::Closed => {
                self.session.close();
                self.closed = true;
            }
        }
        Ok(())
    }

    fn establish(&mut self, established: Established) -> Result<(), ControlError> {
        let name = established.peer.name().clone();
        if !self.context.world.load().directory.has_kedge(&name) {
            self.session.close();
            return Err(ControlError::UnknownNode(name));
        }
        let theirs = Duration::from_secs(established.peer.not_after().as_secs());
        let not_after = (SystemTime::UNIX_EPOCH + theirs).min(self.context.not_after);
        let attesting = established.attesting;
        let of_ours = (self.context.begun, not_after);
        let link = Arc::new(Link::new(established, of_ours, self.sender.clone()));
        if let Err(error) = self
            .context
            .links
            .proofs
            .admit(&link.proof, UnixTime::now())
        {
            self.session.close();
            return Err(ControlError::Distrusted(error));
        }
        self.link = Some(link);
        self.attest(attesting)
    }

    /// Shows what we have, and uses the link as soon as attestation allows it.
    fn attest(&mut self, attesting: [Option<Attesting>; 2]) -> Result<(), ControlError> {
        let (links, key) = (&self.context.links, self.context.node_key);
        let agreed = Attested::agree(&links.attestation, attesting, key);
        self.attested = agreed.inspect_err(|_| self.session.close())?;
        match self.attested.as_ref().map_or(Next::Opens, Attested::first) {
            Next::Opens => self.open()?,
            Next::Admits => self.admit(),
            Next::Waits => {}
        }
        self.show()
    }

    fn show(&mut self) -> Result<(), ControlError> {
        match &mut self.attested {
            Some(attested) => attested.show(&mut self.session),
            None => Ok(()),
        }
    }

    /// Flows are taken before the peer hears that they are.
    fn consume_shown(&mut self, shown: &Shown) -> Result<(), ControlError> {
        let (Some(attested), Some(link)) = (&mut self.attested, &self.link) else {
            return Ok(());
        };
        if let Err(error) = attested.consume_shown(link, shown) {
            return self.disbelieve(error);
        }
        if !self.in_use {
            self.admit();
        }
        self.session.tell_verdict(Ok(()))?;
        self.open_if_settled()
    }

    fn consume_verdict(&mut self, verdict: Verdict) -> Result<(), ControlError> {
        if let Some(attested) = &mut self.attested {
            attested
                .consume_verdict(verdict)
                .inspect_err(|_| self.session.close())?;
        }
        self.open_if_settled()
    }

    fn disbelieve(&mut self, error: Disbelief) -> Result<(), ControlError> {
        if self.attested.is_some() {
            self.session.tell_verdict(refused(&error))?;
        }
        self.session.close();
        Err(ControlError::Disbelieved(error))
    }

    fn open_if_settled(&mut self) -> Result<(), ControlError> {
        match self.attested.as_mut().is_some_and(Attested::opens) {
            true => self.open(),
            false => Ok(()),
        }
    }

    fn admit(&self) {
        if let Some(link) = &self.link {
            self.context.links.admit(link);
        }
    }

    /// From now on flows are opened on it. What was proven may have been lost while it waited.
    fn open(&mut self) -> Result<(), ControlError> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        let now = UnixTime::now();
        let trust = self.context.links.proofs.trust();
        if let Err(error) = link.proof.peer.verify_again(&trust, now) {
            self.session.close();
            return Err(ControlError::Distrusted(error));
        }
        self.context.links.install(link);
        self.context.events.link_up(link);
        self.in_use = true;
        match self.origin.take() {
            // The manager has gone: the daemon is ending.
            Some(Origin::Dialled(waiting)) => drop(waiting.send(Ok(()))),
            Some(Origin::Accepted { place, .. }) => drop(place),
            None => {}
        }
        Ok(())
    }

    fn announce(&mut self, id: &SpiffeId) -> Result<(), ControlError> {
        let handle = self.session.announce(id)?;
        self.update(|known| known.announced_by_us(id, handle));
        Ok(())
    }

    /// The peer's node says that one of its workloads is `id`. Where each flow's addresses are is
    /// checked against the directory for each flow; here only that it can be a workload at all.
    fn consume_announced(&mut self, handle: Handle, id: SpiffeId) -> Result<(), ControlError> {
        let ours = self.context.world.load().trust_domain.clone();
        if id.kind() != IdKind::Workload || id.trust_domain() != ours {
            return Ok(self.session.reject(handle, Refusal::UnknownIdentity)?);
        }
        self.session.accept(handle)?;
        self.update(|known| known.announced_by_peer(id, handle));
        Ok(())
    }

    /// The peer wants to reach `id`: we speak for workloads of this node, and for no others.
    fn consume_request(&mut self, id: &SpiffeId) -> Result<(), ControlError> {
        if self.context.world.load().is_ours(id) {
            self.announce(id)
        } else {
            Ok(self.session.reject_request(id, Refusal::Misplaced)?)
        }
    }

    fn consume_rejection(&mut self, target: RejectTarget, refusal: Refusal) {
        self.update(|known| {
            let id = match target {
                RejectTarget::Id(id) => Some(id),
                RejectTarget::Handle(handle) => known.ours_of(handle),
            };
            if let Some(id) = id {
                known.refused_by_peer(id, refusal);
            }
        });
    }

    fn renew(&self) {
        if let Some(link) = &self.link {
            let (links, link) = (Arc::clone(&self.context.links), Arc::clone(link));
            tokio::spawn(async move { links.demand(Demand::Renew(link)).await });
        }
    }

    fn update(&self, change: impl FnOnce(&mut crate::links::identities::Identities)) {
        if let Some(link) = &self.link {
            link.update_identities(change);
        }
    }
}
