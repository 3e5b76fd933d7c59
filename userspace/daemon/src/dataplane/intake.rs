//! A captured connection, from accept() to its flow.

use crate::dataplane::classify::{Refused, Route, classify_captured, reclassify};
use crate::dataplane::delivery::deliver;
use crate::dataplane::flow::Flow;
use crate::dataplane::registry::{Carriage, FlowInfo};
use crate::dataplane::worker::Worker;
use crate::dataplane::{first_flight, probe};
use crate::limits::HOLD;
use kedge_capture::Claim;
use kedge_model::{Refusal, SourceAddr};
use kedge_sys::socket::reset_on_close;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// Carries one connection to its end, or refuses it aloud.
pub async fn carry(worker: Worker, near: TcpStream, from: SocketAddr) {
    let claim = match take_claim(&worker, &near, from) {
        Ok(claim) => claim,
        Err(refusal) => return refuse(&worker, &near, from, None, refusal.into()),
    };
    if worker.uncapturable.arrived(claim.cgroup_id) {
        worker
            .events
            .capturable(&worker.world.load(), claim.cgroup_id);
    }
    if worker
        .probe_ends
        .contains(&claim.original_dst.socket_addr())
    {
        return probe::answer(&worker, near, &claim, from).await;
    }
    let client = SourceAddr::new(from);
    match classify(&worker, &claim, client).await {
        Ok(route) => open(&worker, near, &claim, route).await,
        Err(refused) => refuse(&worker, &near, from, Some(&claim), refused),
    }
}

fn take_claim(worker: &Worker, near: &TcpStream, from: SocketAddr) -> Result<Claim, Refusal> {
    let local = near.local_addr().map_err(|_| Refusal::Internal)?;
    let claim = worker
        .claims
        .take(from, local)
        .map_err(|_| Refusal::Internal)?;
    claim.ok_or(Refusal::NotCaptured)
}

/// Decides, and gives the directory a while to learn of a workload that has just begun.
async fn classify(worker: &Worker, claim: &Claim, client: SourceAddr) -> Result<Route, Refused> {
    let pick = worker.next_pick();
    match classify_captured(&worker.world.load(), claim, client, pick) {
        Err(Refused {
            refusal: Refusal::SourceUnknown,
            ..
        }) => {}
        verdict => return verdict,
    }
    let known = |world: &_| match classify_captured(world, claim, client, pick) {
        Err(Refused {
            refusal: Refusal::SourceUnknown,
            ..
        }) => None,
        verdict => Some(verdict),
    };
    let verdict = worker.world.wait_for(HOLD, known).await;
    verdict.unwrap_or_else(|| Err(Refusal::SourceUnknown.into()))
}

async fn open(worker: &Worker, near: TcpStream, claim: &Claim, route: Route) {
    let from = route.parties.client.socket_addr();
    let result = if route.node == worker.world.load().node {
        open_local(worker, near, &route).await
    } else {
        open_remote(worker, near, &route).await
    };
    if let Err((near, refusal)) = result {
        let refused = Refused {
            refusal,
            source: Some(route.parties.source),
            destination: Some(route.parties.destination),
        };
        refuse(worker, &near, from, Some(claim), refused);
    }
}

/// A refusal gives the application's socket back, so that it can be reset.
type Opened = Result<(), (TcpStream, Refusal)>;

async fn open_local(worker: &Worker, near: TcpStream, route: &Route) -> Opened {
    match deliver(&worker.claims, &worker.sources, &route.parties).await {
        Ok(far) => {
            let info = FlowInfo::new(route.parties.clone(), Carriage::Local);
            worker.run(Flow::local(near, far), info);
            Ok(())
        }
        Err(refusal) => Err((near, refusal)),
    }
}

async fn open_remote(worker: &Worker, near: TcpStream, route: &Route) -> Opened {
    let ready = match first_flight::prepare(worker, route).await {
        Ok(ready) => ready,
        Err(refusal) => return Err((near, refusal)),
    };
    // What was allowed when the connection came may have moved, or been forbidden, while a link
    // was made: nothing leaves before the newest snapshot has been asked.
    let world = worker.world.load_full();
    if let Err(refusal) = reclassify(&world, &route.parties, (&world.node, &route.node)) {
        return Err((near, refusal));
    }
    let carriage = Carriage::Opener {
        peer: ready.link.peer.clone(),
        suite: ready.link.suite,
    };
    let flow = ready.launch(worker, route, near).await?;
    if let Some(flow) = flow {
        worker.run(flow, FlowInfo::new(route.parties.clone(), carriage));
    }
    Ok(())
}

/// The application sees a reset; the event says why.
fn refuse(
    worker: &Worker,
    near: &TcpStream,
    from: SocketAddr,
    claim: Option<&Claim>,
    refused: Refused,
) {
    // A connection that is gone already needs no reset.
    let _ = reset_on_close(near);
    let destination = claim.map(|claim| claim.original_dst.socket_addr());
    worker.events.refused(from, destination, refused);
}
