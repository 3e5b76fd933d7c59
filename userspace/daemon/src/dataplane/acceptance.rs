//! A connection to the peer port, from accept() to its flow: whose it is, what it carries, and
//! whether that is allowed. Until an opening verifies it costs one small read and two seconds.

use crate::dataplane::buffer::{BUFFER_LEN, Buffer, FRONT};
use crate::dataplane::classify::{Refused, classify_flight};
use crate::dataplane::continuation::{Continuing, Untaken};
use crate::dataplane::delivery::deliver;
use crate::dataplane::flow::Flow;
use crate::dataplane::half::{Open, Seal};
use crate::dataplane::registry::{Carriage, FlowInfo, Parties};
use crate::dataplane::worker::Worker;
use crate::doorstep::{Place, Source};
use crate::fault;
use crate::handover::Passed;
use crate::limits::{
    CARRIER_IDLE_ACCEPTOR, FIRST_FLIGHT_TIMEOUT, HANDSHAKES_INBOUND, PARTING, STRANGER_TIMEOUT,
    STRANGERS_PER_WORKER,
};
use crate::links::{Link, Stranger};
use kedge_link::wire::{Answer, Continuation, Header, Opening};
use kedge_link::{Flight, FlightError};
use kedge_model::{Refusal, canonical};
use kedge_record::{ContentType, HEADER_LEN, OVERHEAD, Rekey, Sealer, Unsealer, deframe};
use kedge_sys::socket::{read_now, reset_on_close};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::timeout;

/// First byte of a TLS handshake record (RFC 8446, 5.1): a link, not a carrier.
const TLS_HANDSHAKE: u8 = 22;

/// Why a connection to the peer port ended before it was a flow.
#[derive(Debug, thiserror::Error)]
pub enum Unaccepted {
    /// Closed or silent without having said anything worth an event.
    #[error("closed before its first flight")]
    Gone,
    #[error("first flight: no link {0} here")]
    UnknownLink(kedge_link::LinkId),
    #[error(transparent)]
    Flight(#[from] FlightError),
    #[error(transparent)]
    Continuation(#[from] Untaken),
    #[error("first flight: {0}")]
    Frame(#[from] kedge_record::FrameError),
    #[error("first flight: not complete within {} s", FIRST_FLIGHT_TIMEOUT.as_secs())]
    Slow,
    #[error("first flight: longer than a buffer")]
    TooLong,
    #[error("nothing said within {} s", STRANGER_TIMEOUT.as_secs())]
    Silent,
    #[error("given up for newer ones, since {STRANGERS_PER_WORKER} had not said who they are")]
    Crowded,
    #[error("{HANDSHAKES_INBOUND} handshakes wait already")]
    TooManyHandshakes,
}

impl From<io::Error> for Unaccepted {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<kedge_link::wire::WireError> for Unaccepted {
    fn from(error: kedge_link::wire::WireError) -> Self {
        Self::Flight(error.into())
    }
}

impl Unaccepted {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Gone => None,
            Self::UnknownLink(_) => Some(Refusal::UnknownLink),
            Self::Flight(error) => Some(error.refusal()),
            Self::Continuation(Untaken::NoFlow(_)) => Some(Refusal::UnknownLink),
            Self::Continuation(Untaken::Refused(error)) => Some(error.refusal()),
            Self::Frame(_) | Self::Slow | Self::TooLong | Self::Silent => Some(Refusal::BadFlight),
            Self::Crowded | Self::TooManyHandshakes => Some(Refusal::OverLimit),
        }
    }
}

/// A first flight that was taken, once, with what came behind it.
struct Arrived {
    flight: Flight,
    buffer: Buffer,
    rest: Range<usize>,
}

/// Carries one connection of a peer to its end, or drops it aloud.
pub async fn carry(worker: Worker, carrier: TcpStream, from: SocketAddr) {
    let mut first = [0; Opening::LEN];
    match introduce(&worker, &carrier, from, &mut first).await {
        Ok(Introduced::Link(len)) => hand_over(&worker, carrier, from, &first[..len]),
        Ok(Introduced::Carrier(link)) => carry_opened(&worker, &link, carrier, from).await,
        Ok(Introduced::Continuation(continuation)) => {
            carry_on(&worker, carrier, from, &continuation);
        }
        Err(error) => pass_on(&worker, carrier, from, first, &error),
    }
}

/// What a stranger turned out to be.
enum Introduced {
    /// A link, which begins with so many bytes.
    Link(usize),
    /// A carrier of this link.
    Carrier(Arc<Link>),
    /// A carrier of a flow that lives here.
    Continuation(Continuation),
}

/// Reads who it is. Whoever takes long for that may lose its place to somebody who does not.
async fn introduce(
    worker: &Worker,
    carrier: &TcpStream,
    from: SocketAddr,
    first: &mut [u8; Opening::LEN],
) -> Result<Introduced, Unaccepted> {
    let source = Source::of(from.ip(), &worker.world.load());
    let mut place = worker.strangers.admit(source).ok_or(Unaccepted::Crowded)?;
    tokio::select! {
        biased;
        read = timeout(STRANGER_TIMEOUT, read_introduction(worker, carrier, first)) => {
            read.map_err(|_| Unaccepted::Silent)?
        }
        () = Place::lost(&mut place) => Err(Unaccepted::Crowded),
    }
}

async fn read_introduction(
    worker: &Worker,
    carrier: &TcpStream,
    first: &mut [u8; Opening::LEN],
) -> Result<Introduced, Unaccepted> {
    let len = read_start(carrier, first).await?;
    match first[0] {
        TLS_HANDSHAKE => Ok(Introduced::Link(len)),
        Continuation::KIND => read_continuation(worker, carrier, first).await,
        _ => consume_opening(worker, first).map(Introduced::Carrier),
    }
}

/// Carries a connection that a successor has accepted for us.
pub async fn carry_passed(worker: Worker, passed: Passed) {
    let Ok(from) = passed.carrier.peer_addr().map(canonical) else {
        return;
    };
    let Ok(carrier) = TcpStream::from_std(passed.carrier) else {
        return;
    };
    let introduced = match passed.opening[0] {
        Continuation::KIND => {
            let read = read_continuation(&worker, &carrier, &passed.opening);
            let read = timeout(STRANGER_TIMEOUT, read).await;
            read.unwrap_or(Err(Unaccepted::Silent))
        }
        _ => consume_opening(&worker, &passed.opening).map(Introduced::Carrier),
    };
    match introduced {
        Ok(Introduced::Carrier(link)) => carry_opened(&worker, &link, carrier, from).await,
        Ok(Introduced::Continuation(continuation)) => {
            carry_on(&worker, carrier, from, &continuation);
        }
        Ok(Introduced::Link(_)) => unreachable!("a link has no opening"),
        Err(error) => pass_on(&worker, carrier, from, passed.opening, &error),
    }
}

async fn carry_opened(worker: &Worker, link: &Arc<Link>, carrier: TcpStream, from: SocketAddr) {
    match receive_flight(worker, link, &carrier).await {
        Ok(arrived) => accept(worker, link, carrier, arrived).await,
        Err(error) => refuse(worker, &carrier, from, &error),
    }
}

/// Gives a carrier to the flow of ours that goes on there; one that the flow does not take is
/// closed.
fn carry_on(worker: &Worker, carrier: TcpStream, from: SocketAddr, continuation: &Continuation) {
    let taken = match carrier.into_std() {
        Ok(carrier) => worker.continuations.take(carrier, continuation),
        Err(_gone) => return,
    };
    if let Err(untaken) = taken {
        report(worker, from, &untaken.into());
    }
}

/// A link or flow that is not ours may be our predecessor's; every other fault is the carrier's own.
fn pass_on(
    worker: &Worker,
    carrier: TcpStream,
    from: SocketAddr,
    opening: [u8; Opening::LEN],
    error: &Unaccepted,
) {
    match (error, &worker.predecessor) {
        (
            Unaccepted::UnknownLink(_) | Unaccepted::Continuation(Untaken::NoFlow(_)),
            Some(predecessor),
        ) => {
            let passed = carrier
                .into_std()
                .and_then(|carrier| predecessor.pass(Passed { carrier, opening }));
            if passed.is_err() {
                report(worker, from, error);
            }
        }
        _ => refuse(worker, &carrier, from, error),
    }
}

/// Reads until there is a whole opening, or as much of a continuation, or a first byte of neither.
async fn read_start(carrier: &TcpStream, first: &mut [u8; Opening::LEN]) -> io::Result<usize> {
    let mut len = 0;
    loop {
        len += read_some(carrier, &mut first[len..]).await?;
        let is_carrier = matches!(first[0], Opening::KIND | Continuation::KIND);
        if len == Opening::LEN || !is_carrier {
            return Ok(len);
        }
    }
}

/// At least one byte. They are often there before the runtime knows.
async fn read_some(carrier: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match read_now(carrier, room) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for_more(carrier).await?
            }
            read => return read,
        }
    }
}

/// Until new bytes arrive: what the runtime took for readiness before was read past its back.
async fn wait_for_more(carrier: &TcpStream) -> io::Result<()> {
    let stale = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    let _ = carrier.try_io(Interest::READABLE, stale);
    carrier.readable().await
}

/// Links belong to the control runtime.
fn hand_over(worker: &Worker, stream: TcpStream, from: SocketAddr, prefix: &[u8]) {
    let Ok(stream) = stream.into_std() else {
        return;
    };
    let stranger = Stranger {
        from,
        stream,
        prefix: prefix.to_vec(),
    };
    if let Err(TrySendError::Full(stranger)) = worker.links_in.try_send(stranger) {
        refuse(
            worker,
            &stranger.stream,
            from,
            &Unaccepted::TooManyHandshakes,
        );
    }
}

/// The rest of a continuation of ours. Of another daemon's nothing more is read: it goes there.
async fn read_continuation(
    worker: &Worker,
    carrier: &TcpStream,
    start: &[u8; Opening::LEN],
) -> Result<Introduced, Unaccepted> {
    let flow = Continuation::parse_flow(start)?;
    if !worker.continuations.has(&flow) {
        return Err(Untaken::NoFlow(flow).into());
    }
    let mut bytes = [0; Continuation::LEN];
    bytes[..Opening::LEN].copy_from_slice(start);
    let mut len = Opening::LEN;
    while len < Continuation::LEN {
        len += read_some(carrier, &mut bytes[len..]).await?;
    }
    Ok(Introduced::Continuation(Continuation::parse(&bytes)?))
}

fn consume_opening(worker: &Worker, first: &[u8; Opening::LEN]) -> Result<Arc<Link>, Unaccepted> {
    let opening = Opening::parse(first)?;
    let link = worker.links.by_id(opening.link_id);
    let link = link.ok_or(Unaccepted::UnknownLink(opening.link_id))?;
    link.check_opening(&opening)?;
    Ok(link)
}

/// Waits for the first flight, then reads it whole and takes its number.
async fn receive_flight(
    worker: &Worker,
    link: &Link,
    carrier: &TcpStream,
) -> Result<Arrived, Unaccepted> {
    let first = timeout(CARRIER_IDLE_ACCEPTOR, first_bytes(worker, carrier));
    let (mut buffer, len) = first.await.map_err(|_| Unaccepted::Gone)??;
    let rest = timeout(FIRST_FLIGHT_TIMEOUT, read_flight(carrier, &mut buffer, len));
    let (end, len) = rest.await.map_err(|_| Unaccepted::Slow)??;
    let record0 = Header::LEN..Header::LEN + end;
    let header = header(&buffer)?;
    fault::point("header-read");
    let pending = link.pending_flow(&header)?;
    let flight = link.consume_flight(pending, &mut buffer[record0.clone()])?;
    fault::point("number-taken");
    let rest = record0.end..len;
    Ok(Arrived {
        flight,
        buffer,
        rest,
    })
}

/// An idle carrier holds no buffer: one is taken for each look, and readiness may be spurious.
async fn first_bytes(worker: &Worker, carrier: &TcpStream) -> Result<(Buffer, usize), Unaccepted> {
    loop {
        carrier.readable().await?;
        let mut buffer = worker.pool.take().await;
        match carrier.try_read(&mut buffer) {
            Ok(0) => return Err(Unaccepted::Gone),
            Ok(len) => return Ok((buffer, len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn header(buffer: &[u8]) -> Result<Header, Unaccepted> {
    let bytes = buffer
        .first_chunk()
        .expect("the buffer is longer than a header");
    Ok(Header::parse(bytes)?)
}

/// Reads on until header and record 0 are there; gives record 0's length and that of everything.
async fn read_flight(
    carrier: &TcpStream,
    buffer: &mut Buffer,
    mut len: usize,
) -> Result<(usize, usize), Unaccepted> {
    loop {
        if len > Header::LEN
            && let Some(end) = deframe(&buffer[Header::LEN..len])?
        {
            return Ok((end, len));
        }
        if len == BUFFER_LEN {
            return Err(Unaccepted::TooLong);
        }
        carrier.readable().await?;
        match carrier.try_read(&mut buffer[len..]) {
            Ok(0) => return Err(Unaccepted::Gone),
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Decides, connects to the workload, answers.
async fn accept(worker: &Worker, link: &Arc<Link>, carrier: TcpStream, arrived: Arrived) {
    let result = match classify(worker, link, &arrived.flight) {
        Ok(parties) => connect(worker, link, &arrived.flight, parties).await,
        Err(refused) => Err(refused),
    };
    match result {
        Ok((near, parties)) => {
            let carriage = Carriage::Acceptor {
                proof: Arc::clone(&link.proof),
                suite: link.suite,
            };
            let (keys, limits) = (arrived.flight.keys, link.record_limits());
            let mut sealer = Sealer::with_limits(keys.acceptor, limits);
            let unsealer = Unsealer::with_limits(keys.opener, limits);
            let continuing = (link.rekey == Rekey::Continue)
                .then(|| Rc::new(worker.continuations.enter(keys.continuation)))
                .map(Continuing::Acceptor);
            let (buffer, range) = seal_answer(worker, &mut sealer, &Answer::Accepted).await;
            let out = Seal::new(sealer, true).with_sealed(buffer, range);
            let back = Open::with_received(unsealer, arrived.buffer, arrived.rest);
            let records = worker.records_of(link, &parties.destination);
            let flow = Flow::acceptor(near, carrier, out, back)
                .with_records(records)
                .with_continuing(continuing);
            worker.run(flow, FlowInfo::new(parties, carriage), None);
        }
        Err(refused) => deny(worker, link, &carrier, arrived, &refused).await,
    }
}

fn classify(worker: &Worker, link: &Link, flight: &Flight) -> Result<Parties, Refused> {
    let record0 = &flight.record0;
    let (source, destination) = link.with_identities(|known| {
        (
            known.theirs_of(record0.source),
            known.ours_of(record0.destination),
        )
    });
    let source = source.ok_or(Refusal::UnknownIdentity)?;
    let destination = destination.ok_or(Refusal::UnknownIdentity)?;
    let world = worker.world.load();
    let verdict = classify_flight(&world, &link.peer, record0, &source, &destination);
    verdict.map_err(|refusal| Refused::by(&world, refusal))
}

/// Connects, and decides once more by what is known then: the pod may have gone meanwhile, and
/// its address may be somebody else's by now.
async fn connect(
    worker: &Worker,
    link: &Link,
    flight: &Flight,
    parties: Parties,
) -> Result<(TcpStream, Parties), Refused> {
    let decided_at = worker.world.version();
    fault::point("policy-checked");
    let near = deliver(&worker.claims, &worker.sources, &parties).await?;
    fault::point("workload-connected");
    if worker.world.version() != decided_at {
        classify(worker, link, flight)?;
    }
    Ok((near, parties))
}

/// Tells the opener why, sealed, and the operators of both nodes.
async fn deny(
    worker: &Worker,
    link: &Link,
    carrier: &TcpStream,
    arrived: Arrived,
    refused: &Refused,
) {
    worker
        .events
        .flight_denied(link, &arrived.flight.record0, refused);
    drop(arrived.buffer);
    let mut sealer = Sealer::new(arrived.flight.keys.acceptor);
    let answer = Answer::Denied {
        refusal: refused.refusal,
        text: refused.refusal.cause().to_owned(),
    };
    let (buffer, range) = seal_answer(worker, &mut sealer, &answer).await;
    // An empty send buffer takes a short answer whole; an opener that is gone needs none.
    let _ = carrier.try_write(&buffer[range]);
    let _ = timeout(PARTING, swallow(carrier, buffer)).await;
}

/// Reads until the opener closes: a socket closed with bytes unread sends RST, and that would
/// take the answer with it.
async fn swallow(carrier: &TcpStream, mut buffer: Buffer) -> io::Result<()> {
    loop {
        carrier.readable().await?;
        match carrier.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

async fn seal_answer(
    worker: &Worker,
    sealer: &mut Sealer,
    answer: &Answer,
) -> (Buffer, Range<usize>) {
    let mut content = Vec::with_capacity(64);
    answer.encode(&mut content);
    let mut buffer = worker.pool.take().await;
    let slot = &mut buffer[FRONT..];
    slot[HEADER_LEN..][..content.len()].copy_from_slice(&content);
    sealer
        .seal(ContentType::ApplicationData, slot, content.len())
        .expect("a new key seals one record that fits its slot");
    (buffer, FRONT..FRONT + content.len() + OVERHEAD)
}

/// Ends a connection that is no flow, without a word and with nothing left of it in the kernel.
fn refuse(worker: &Worker, carrier: &impl AsFd, from: SocketAddr, error: &Unaccepted) {
    // One that is gone already needs no reset.
    let _ = reset_on_close(carrier);
    report(worker, from, error);
}

fn report(worker: &Worker, from: SocketAddr, error: &Unaccepted) {
    if let Some(refusal) = error.refusal() {
        worker
            .events
            .flight_refused(from, refusal, &error.to_string());
    }
}
