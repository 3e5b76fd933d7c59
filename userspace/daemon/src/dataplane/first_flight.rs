//! Opens a flow towards another node: header, record 0 and the first bytes of the application
//! leave in one write, before anything has come back.

use crate::dataplane::buffer::{Buffer, FRONT, SLOT};
use crate::dataplane::carrier::Carrier;
use crate::dataplane::classify::Route;
use crate::dataplane::continuation::{Continuing, Dial, Redial};
use crate::dataplane::flow::Flow;
use crate::dataplane::half::{Open, Seal};
use crate::dataplane::worker::Worker;
use crate::fault;
use crate::limits::PARTING;
use crate::links::Link;
use kedge_link::wire::{Answer, Record0};
use kedge_link::{ContinuationKey, Handle, NewFlow, ProofKind};
use kedge_model::Refusal;
use kedge_record::{
    ContentType, HEADER_LEN, OVERHEAD, Opened, PLAINTEXT_MAX, Rekey, Sealer, Unsealer, deframe,
};
use kedge_sys::patience::Patience;
use kedge_sys::socket::read_now;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Everything that is needed before the first byte is sealed.
pub struct Ready {
    pub link: Arc<Link>,
    carrier: Carrier,
    handles: (Handle, Handle),
    legs: Patience,
}

/// Gets a link, both identities proven on it, and a carrier with the client's limits. Nothing of
/// the application has been read: all of this may fail, or be tried again, without harm.
pub async fn prepare(worker: &Worker, route: &Route, legs: Patience) -> Result<Ready, Refusal> {
    let link = worker.links.link_to(&route.node).await?;
    let parties = &route.parties;
    let handles = link.prove(&parties.source, &parties.destination).await?;
    let carrier = worker.carriers.take(&link).await?;
    // One that does not take them has died already, and says so by itself.
    let _ = legs.tighten(&carrier.stream);
    Ok(Ready {
        link,
        carrier,
        handles,
        legs,
    })
}

impl Ready {
    /// Seals the first flight, with what the application has sent by now. From here on there is
    /// no second try: a byte that was sealed is delivered at most once. `None`: the application
    /// has reset its connection meanwhile, and nothing is sent.
    pub async fn launch(
        self,
        worker: &Worker,
        route: &Route,
        near: TcpStream,
    ) -> Result<Option<Flow>, (TcpStream, Refusal)> {
        let Ok(flow) = self.link.open_flow() else {
            return Err((near, Refusal::LinkFailed));
        };
        let mut flight = Vec::with_capacity(FRONT);
        flight.extend_from_slice(
            self.carrier
                .opening
                .as_ref()
                .map_or(&[], |opening| &opening[..]),
        );
        let keys = seal_record0(flow, &mut flight, route, self.handles);
        fault::point("record-0-sealed");
        if fault::is("leak-one-byte") {
            flight.push(b'!');
        }
        let limits = self.link.record_limits();
        let mut sealer = Sealer::with_limits(keys.opener, limits);
        let mut buffer = worker.pool.take().await;
        let start = FRONT - flight.len();
        buffer[start..FRONT].copy_from_slice(&flight);
        let Ok(sealed) = seal_first_bytes(&near, &mut sealer, &mut buffer) else {
            return Ok(None);
        };
        let out = Seal::new(sealer, false).with_sealed(buffer, start..FRONT + sealed);
        let back = Open::awaiting_answer(Unsealer::with_limits(keys.acceptor, limits));
        let records = worker.records_of(&self.link, &route.parties.source);
        let continuing = (self.link.rekey == Rekey::Continue)
            .then(|| redial(worker, &self.link, keys.continuation, self.legs));
        let flow = Flow::opener(near, self.carrier.stream, out, back)
            .with_records(records)
            .with_continuing(continuing);
        Ok(Some(flow))
    }

    /// Opens a flow without a byte of an application, and says what its answer is. The flow is
    /// then closed in both directions, like that of a client which wants nothing.
    pub async fn knock(self, worker: &Worker, route: &Route) -> Result<(), Refusal> {
        let flow = self.link.open_flow().map_err(|_| Refusal::LinkFailed)?;
        let opening = self.carrier.opening;
        let mut flight = opening.map_or_else(Vec::new, |opening| opening.to_vec());
        let keys = seal_record0(flow, &mut flight, route, self.handles);
        let mut carrier = self.carrier.stream;
        let lost = |_| Refusal::LinkLost;
        carrier.write_all(&flight).await.map_err(lost)?;
        let mut unsealer = Unsealer::new(keys.acceptor);
        let buffer = worker.pool.take().await;
        read_answer(&carrier, buffer, &mut unsealer).await?;
        spawn_local(part(carrier, Sealer::new(keys.opener)));
        Ok(())
    }
}

/// Further carriers of a flow go to the same node, whatever becomes of its link.
fn redial(worker: &Worker, link: &Link, key: ContinuationKey, patience: Patience) -> Continuing {
    let (carriers, node) = (worker.carriers.clone(), link.peer.clone());
    let dial: Dial = Box::new(move || {
        let (carriers, node) = (carriers.clone(), node.clone());
        Box::pin(async move { carriers.connect(&node).await })
    });
    Continuing::Opener(Rc::new(Redial {
        key,
        dial,
        patience,
    }))
}

/// Reads the first record, which is the answer.
async fn read_answer(
    carrier: &TcpStream,
    mut buffer: Buffer,
    unsealer: &mut Unsealer,
) -> Result<(), Refusal> {
    let mut len = 0;
    loop {
        let framed = deframe(&buffer[..len]).map_err(|_| Refusal::LinkLost)?;
        if let Some(end) = framed {
            let Ok(Opened::Data(content)) = unsealer.open(&mut buffer[..end]) else {
                return Err(Refusal::LinkLost);
            };
            return match Answer::parse(content) {
                Ok(Answer::Accepted) => Ok(()),
                Ok(Answer::Denied { refusal, .. }) => Err(refusal),
                Err(_) => Err(Refusal::LinkLost),
            };
        }
        let readable = carrier.readable().await;
        match readable.and_then(|()| carrier.try_read(&mut buffer[len..])) {
            Ok(0) => return Err(Refusal::LinkLost),
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Refusal::LinkLost),
        }
    }
}

/// close_notify, and a while for the other side's end. Whatever the server says is dropped.
async fn part(mut carrier: TcpStream, mut sealer: Sealer) {
    let mut alert = [0; OVERHEAD + 8];
    let Ok(len) = sealer.seal_close_notify(&mut alert) else {
        return;
    };
    if carrier.write_all(&alert[..len]).await.is_ok() {
        let mut nowhere = tokio::io::sink();
        let _ = timeout(PARTING, tokio::io::copy(&mut carrier, &mut nowhere)).await;
    }
}

fn seal_record0(
    flow: NewFlow,
    flight: &mut Vec<u8>,
    route: &Route,
    (source, destination): (Handle, Handle),
) -> kedge_link::FlowKeys {
    let record0 = Record0 {
        source,
        source_proof: ProofKind::AssertedByNode,
        destination,
        source_address: route.parties.client,
        destination_address: route.direct(),
        destination_instance: route.parties.uid.as_bytes().to_vec(),
    };
    flow.seal_record0(&record0, flight)
}

/// What a client that speaks first has sent already, as one record; 0 bytes for one that waits.
/// A clean end is left for the flow to find; an error would not come a second time.
fn seal_first_bytes(
    near: &TcpStream,
    sealer: &mut Sealer,
    buffer: &mut Buffer,
) -> io::Result<usize> {
    let slot = &mut buffer[FRONT..FRONT + SLOT];
    match read_now(near, &mut slot[HEADER_LEN..][..PLAINTEXT_MAX]) {
        Ok(0) => Ok(0),
        Ok(len) => Ok(sealer
            .seal(ContentType::ApplicationData, slot, len)
            .expect("a new key seals one record that fits its slot")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}
