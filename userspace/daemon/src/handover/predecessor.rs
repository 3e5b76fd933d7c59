//! The side of the daemon that serves: it offers everything, and takes it back until the
//! successor serves.

use crate::edge::Observed;
use crate::events::{Events, chain};
use crate::handover::SOCKET_FILE;
use crate::handover::channel::{Channel, Handed, Message, Passed, async_fd};
use crate::handover::gate::Gate;
use crate::limits::{HANDOVER_ANSWER, RETIREMENT_MIN};
use kedge_api::EventKind;
use kedge_capture::Capture;
use kedge_sys::passing;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Where a successor finds us.
pub struct Succession {
    listener: AsyncFd<OwnedFd>,
    hidden: PathBuf,
    path: PathBuf,
}

/// What a successor is given, and what is taken back from one that does not come to serve.
pub struct Offer {
    pub gate: Gate,
    pub capture: Arc<Mutex<Capture>>,
    pub listening: Handed,
    /// To each worker, for carriers that come back.
    pub passed: Vec<mpsc::Sender<Passed>>,
    pub events: Events,
}

impl Succession {
    /// Listens, under a name that nobody asks for yet.
    pub fn bind(run_dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(run_dir)?;
        let hidden = run_dir.join(format!(".{SOCKET_FILE}"));
        let _ = std::fs::remove_file(&hidden);
        let listener = async_fd(passing::listen(&hidden)?)?;
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self {
            listener,
            hidden,
            path: run_dir.join(SOCKET_FILE),
        })
    }

    /// From now on it is this daemon that is asked.
    pub fn publish(&self) -> io::Result<()> {
        std::fs::rename(&self.hidden, &self.path)
    }

    /// Until a successor serves.
    pub async fn succeeded(&self, offer: &Offer) -> Channel {
        loop {
            let channel = self.next().await;
            let offered = match channel {
                Ok(channel) => offer.to(&channel).await.map(|()| channel),
                Err(error) => Err(error),
            };
            match offered {
                Ok(channel) => return channel,
                Err(error) => offer.take_back(&error),
            }
        }
    }

    async fn next(&self) -> io::Result<Channel> {
        loop {
            let mut ready = self.listener.readable().await?;
            if let Ok(accepted) = ready.try_io(|socket| passing::accept(socket.get_ref())) {
                return Channel::new(accepted?);
            }
        }
    }
}

impl Offer {
    /// Until it serves, or goes before it has.
    async fn to(&self, successor: &Channel) -> io::Result<()> {
        let asked = timeout(HANDOVER_ANSWER, successor.receive()).await??;
        expect(matches!(asked, Message::Take))?;
        successor.send_listeners(self.listening.duplicate()?)?;
        // It loads and fills what it needs; we serve meanwhile, so there is no hurry.
        let ready = successor.receive().await?;
        expect(matches!(ready, Message::StandBy))?;
        if !self.gate.shut(HANDOVER_ANSWER / 2).await {
            return Err(io::ErrorKind::TimedOut.into());
        }
        successor.send(&Message::StandingBy)?;
        let serves = timeout(HANDOVER_ANSWER, successor.receive()).await??;
        expect(matches!(serves, Message::Serving))
    }

    /// The successor may have swapped some programs, or all, for its own.
    fn take_back(&self, cause: &io::Error) {
        tracing::warn!(%cause, "a successor did not come to serve: going on");
        let mut capture = self.capture.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = capture.attach(|_| {}) {
            self.events.capture_failed(&chain(&error));
        }
        drop(capture);
        self.gate.open();
    }
}

/// Serves no more: lets the links drain and the flows end. Carriers of these links still come,
/// through the successor. Returns when nothing is left.
pub async fn retire(successor: &Channel, offer: Offer, observed: &Observed) {
    offer.gate.remove();
    observed.links.retire();
    let live = observed.flows_live();
    offer.events.say(
        EventKind::Stopping,
        format!("a successor serves; {live} flows go on here until they end"),
    );
    // The listening sockets are the successor's alone now.
    drop(offer.listening);
    tokio::select! {
        () = take_passed(successor, &offer.passed) => {}
        () = until_idle(observed) => {}
    }
}

/// Gives the workers what the successor passes on, each in its turn.
async fn take_passed(successor: &Channel, workers: &[mpsc::Sender<Passed>]) {
    let mut turns = workers.iter().cycle();
    while let Ok(message) = successor.receive().await {
        if let (Message::Carrier(passed), Some(worker)) = (message, turns.next())
            && worker.try_send(passed).is_err()
        {
            tracing::warn!("a carrier was passed on while too many wait: refused");
        }
    }
    std::future::pending().await
}

/// What was accepted before has become a flow by then, or was refused.
async fn until_idle(observed: &Observed) {
    let began = Instant::now();
    let is_busy = || observed.flows_live() > 0 || !observed.links.all().is_empty();
    while began.elapsed() < RETIREMENT_MIN || is_busy() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn expect(as_agreed: bool) -> io::Result<()> {
    match as_agreed {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Handed {
    /// The same sockets under further descriptors.
    pub fn duplicate(&self) -> io::Result<Self> {
        let copies = self.0.iter();
        let copies = copies.map(|(role, listener)| Ok((*role, listener.try_clone()?)));
        copies.collect::<io::Result<_>>().map(Self)
    }
}
