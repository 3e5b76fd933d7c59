//! Where a direction of a flow goes on when its key has ended and cannot be changed in place: on
//! another TCP connection, which the flow's opener makes and its acceptor waits for
//! (docs/protocol.md, "Continuation").
//!
//! ```text
//!   half: Continue ─► Between ─► Continuing::next ─► a new carrier ─► half under the next key
//!                                  ├─ opener: dials, claims, reads the confirmation
//!                                  └─ acceptor: awaits ◄── Continuations::take ◄── acceptance,
//!                                     confirms             any worker
//! ```

use crate::dataplane::half::Broken;
use crate::limits::{CONTINUATION_TIMEOUT, READER_LOOK};
use kedge_link::wire::{Continuation, Direction, FlowName, Point};
use kedge_link::{ContinuationError, ContinuationKey, Turns};
use kedge_record::{Sealer, Unsealer};
use kedge_sys::patience::Patience;
use kedge_sys::tcp_info::TcpInfo;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

type Tag = [u8; Continuation::TAG_LEN];

/// A direction between two carriers.
pub struct Between {
    pub keys: Keys,
    next: Pin<Box<dyn Future<Output = Result<Next, Broken>>>>,
}

/// What the direction goes on with.
pub enum Keys {
    /// And whether FIN follows close_notify.
    Seal(Sealer, bool),
    Open(Unsealer),
}

impl Keys {
    pub fn generation(&self) -> u32 {
        match self {
            Self::Seal(sealer, _) => sealer.key_generation(),
            Self::Open(unsealer) => unsealer.key_generation(),
        }
    }
}

/// A carrier that stands where the direction goes on.
pub struct Next {
    pub stream: TcpStream,
    /// What the acceptor says on it first, once it has left the carrier before.
    pub confirmation: Option<Tag>,
}

/// How a flow gets the next carrier of a direction.
#[derive(Clone)]
pub enum Continuing {
    Opener(Rc<Redial>),
    Acceptor(Rc<Awaited>),
}

/// The opener's side.
pub struct Redial {
    pub key: ContinuationKey,
    pub dial: Dial,
    pub patience: Patience,
}

/// Connects to the acceptor's peer port.
pub type Dial = Box<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>>;

/// The accepted flows of this daemon that may continue, no more than there are flows, and what
/// arrives for them: a carrier a direction at most.
#[derive(Clone, Default)]
pub struct Continuations(Arc<Mutex<HashMap<FlowName, Arc<Flow>>>>);

/// The acceptor's side: one flow's place among them, which it leaves on drop.
pub struct Awaited {
    all: Continuations,
    name: FlowName,
    flow: Arc<Flow>,
}

/// One flow, as the workers see it that accept carriers for it.
struct Flow {
    taking: Mutex<Taking>,
    /// By direction.
    arrived: [Notify; 2],
}

struct Taking {
    turns: Turns,
    arrivals: [Option<Arrival>; 2],
}

struct Arrival {
    stream: std::net::TcpStream,
    point: Point,
    confirmation: Tag,
}

/// Why a continuation was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    #[error("continuation: no flow {number} of link {link_id} lives here", number = .0.number, link_id = .0.link_id)]
    NoFlow(FlowName),
    #[error(transparent)]
    Refused(#[from] ContinuationError),
}

/// Why a flow did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error("connect to the peer's node")]
    Dial(#[source] io::Error),
    #[error("the peer's daemon does not take it")]
    NotTaken(#[source] io::Error),
    #[error("the peer's daemon confirms another one")]
    Unconfirmed,
    #[error("the peer's daemon sent none within {} s", CONTINUATION_TIMEOUT.as_secs())]
    NotSent,
    #[error(
        "the peer's daemon names record {} before generation {}, here it is {} before {}",
        named.last_record, named.generation, here.last_record, here.generation
    )]
    OtherPoint { named: Point, here: Point },
}

impl Between {
    /// After `point`, on the carrier `old`.
    pub fn new(continuing: &Continuing, keys: Keys, point: Point, old: Rc<TcpStream>) -> Self {
        let receives = matches!(keys, Keys::Open(_));
        let continuing = continuing.clone();
        let next = async move {
            match continuing {
                Continuing::Opener(redial) => redial.next(point).await,
                Continuing::Acceptor(awaited) if receives => awaited.next_soon(point, &old).await,
                Continuing::Acceptor(awaited) => awaited.next_in_time(point, &old).await,
            }
        };
        Self {
            keys,
            next: Box::pin(next),
        }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Broken>> {
        self.next.as_mut().poll(cx)
    }
}

impl Redial {
    async fn next(&self, point: Point) -> Result<Next, Broken> {
        let mut stream = (self.dial)().await.map_err(Stopped::Dial)?;
        // One that does not take the client's limits has died already, and says so by itself.
        let _ = self.patience.tighten(&stream);
        let continuation = self.key.continuation(point);
        let mut confirmation = Tag::default();
        let sent = stream.write_all(&continuation.encode()).await;
        sent.map_err(Stopped::NotTaken)?;
        // As long as it takes: the peer's workload reads first what it was sent before.
        let read = stream.read_exact(&mut confirmation).await;
        read.map_err(Stopped::NotTaken)?;
        match self.key.confirms(&continuation, &confirmation) {
            true => Ok(Next {
                stream,
                confirmation: None,
            }),
            false => Err(Stopped::Unconfirmed.into()),
        }
    }
}

impl Continuations {
    /// A place for an accepted flow.
    #[must_use]
    pub fn enter(&self, key: ContinuationKey) -> Awaited {
        let name = key.flow();
        let flow = Arc::new(Flow {
            taking: Mutex::new(Taking {
                turns: Turns::new(key),
                arrivals: [None, None],
            }),
            arrived: Default::default(),
        });
        lock(&self.0).insert(name, Arc::clone(&flow));
        Awaited {
            all: self.clone(),
            name,
            flow,
        }
    }

    #[must_use]
    pub fn has(&self, flow: &FlowName) -> bool {
        lock(&self.0).contains_key(flow)
    }

    /// Gives a carrier to the flow that its continuation names, if it is its own and the next one.
    ///
    /// # Errors
    /// When it is not. The flow waits on.
    pub fn take(
        &self,
        stream: std::net::TcpStream,
        continuation: &Continuation,
    ) -> Result<(), Untaken> {
        let (flow, point) = (continuation.flow, continuation.point);
        let known = lock(&self.0).get(&flow).cloned();
        let known = known.ok_or(Untaken::NoFlow(flow))?;
        let mut taking = lock(&known.taking);
        let confirmation = taking.turns.take(continuation)?;
        let at = point.direction as usize;
        taking.arrivals[at] = Some(Arrival {
            stream,
            point,
            confirmation,
        });
        known.arrived[at].notify_one();
        Ok(())
    }
}

impl Awaited {
    async fn next(&self, point: Point) -> Result<Next, Broken> {
        let arrival = self.arrival(point.direction).await;
        if arrival.point != point {
            let named = arrival.point;
            return Err(Stopped::OtherPoint { named, here: point }.into());
        }
        Ok(Next {
            stream: TcpStream::from_std(arrival.stream).map_err(Broken::Carrier)?,
            confirmation: Some(arrival.confirmation),
        })
    }

    async fn arrival(&self, direction: Direction) -> Arrival {
        let at = direction as usize;
        loop {
            if let Some(arrival) = lock(&self.flow.taking).arrivals[at].take() {
                return arrival;
            }
            self.flow.arrived[at].notified().await;
        }
    }

    /// After a Continue of the opener's, which has all that it needs; on `old` there is nothing to
    /// come but its end.
    async fn next_soon(&self, point: Point, old: &TcpStream) -> Result<Next, Broken> {
        tokio::select! {
            biased;
            next = timeout(CONTINUATION_TIMEOUT, self.next(point)) => {
                next.map_err(|_| Stopped::NotSent)?
            }
            () = ended(old) => Err(Broken::Truncated),
        }
    }

    /// After a Continue of ours: the opener's workload may take its time to read what comes before
    /// it, as long as `old` lives.
    async fn next_in_time(&self, point: Point, old: &TcpStream) -> Result<Next, Broken> {
        let next = self.next(point);
        let mut next = std::pin::pin!(next);
        loop {
            if let Ok(next) = timeout(READER_LOOK, &mut next).await {
                return next;
            }
            let info = TcpInfo::of(old).map_err(Broken::Carrier)?;
            if !info.is_established() {
                return Err(Broken::Truncated);
            }
        }
    }
}

/// Until the other side has closed, or sent what it must not.
async fn ended(carrier: &TcpStream) {
    loop {
        let _ = carrier.readable().await;
        match carrier.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        lock(&self.all.0).remove(&self.name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
