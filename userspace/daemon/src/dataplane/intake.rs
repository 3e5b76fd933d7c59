//! A captured connection, from accept() to its flow.

use crate::dataplane::classify::{Refused, Route, classify_captured, reclassify};
use crate::dataplane::delivery::deliver;
use crate::dataplane::flow::Flow;
use crate::dataplane::refusals::Asked;
use crate::dataplane::registry::{Carriage, FlowInfo};
use crate::dataplane::shares::Share;
use crate::dataplane::worker::Worker;
use crate::dataplane::{first_flight, patience, probe};
use crate::limits::{HOLD, OPENING_PER_WORKER};
use kedge_capture::Claim;
use kedge_model::{Refusal, SourceAddr};
use kedge_sys::patience::Patience;
use kedge_sys::socket::reset_on_close;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

/// A connection that there is room for, and whose it is.
pub struct Admitted {
    claim: Claim,
    client: SourceAddr,
    /// Until its first flight has left.
    opening: Share,
    /// Until its end.
    flow: Share,
    /// When its opening has failed.
    until: Instant,
}

/// Looks at once whose a new connection is: one that floods is reset before it costs anything,
/// and before anybody else is.
pub fn admit(worker: &Worker, near: &TcpStream, from: SocketAddr) -> Option<Admitted> {
    let claim = match read_claim(worker, near) {
        Ok(claim) => claim,
        Err(refusal) => {
            refuse(worker, near, from, None, refusal.into());
            return None;
        }
    };
    if worker.uncapturable.arrived(claim.cgroup_id) {
        let world = worker.world.load();
        worker.events.capturable(&world, claim.cgroup_id);
    }
    let opening = worker.opening.take(claim.cgroup_id);
    let flow = worker.flows.take(claim.cgroup_id);
    match (opening, flow) {
        (Some(opening), Some(flow)) if !worker.is_full() => Some(Admitted {
            client: SourceAddr::new(from),
            until: patience::opening_ends(&claim),
            claim,
            opening,
            flow,
        }),
        (opening, _) => {
            // A reset tells the application at once; without one it would wait.
            let _ = reset_on_close(near);
            let (what, limit) = match opening {
                None => (
                    "connections that wait for their first flight",
                    OPENING_PER_WORKER,
                ),
                Some(_) => ("flows", worker.flows_max),
            };
            let world = worker.world.load();
            let source = world.workload_in(claim.cgroup_id);
            let source = source.map(|source| source.id.clone());
            worker.events.over_limit(what, limit, source);
            None
        }
    }
}

/// Carries one connection to its end, or refuses it aloud.
pub async fn carry(worker: Worker, near: TcpStream, admitted: Admitted) {
    let asked = admitted.claim.original_dst.socket_addr();
    if worker.probe_ends.contains(&asked) {
        let from = admitted.client.socket_addr();
        return probe::answer(&worker, near, &admitted.claim, from).await;
    }
    match classify(&worker, &admitted.claim, admitted.client).await {
        Ok(route) => open(&worker, near, admitted, route).await,
        Err(refused) => {
            let from = admitted.client.socket_addr();
            refuse(&worker, &near, from, Some(&admitted.claim), refused);
        }
    }
}

fn read_claim(worker: &Worker, near: &TcpStream) -> Result<Claim, Refusal> {
    let claim = worker.claims.of(near.as_fd());
    claim
        .map_err(|_| Refusal::Internal)?
        .ok_or(Refusal::NotCaptured)
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

async fn open(worker: &Worker, near: TcpStream, admitted: Admitted, route: Route) {
    let Admitted {
        claim,
        client,
        opening,
        flow,
        until,
    } = admitted;
    let legs = patience::of_legs(&claim);
    let opened = if route.node == worker.world.load().node {
        open_local(worker, near, &route, legs).await
    } else {
        open_remote(worker, near, &route, legs, until).await
    };
    drop(opening);
    match opened {
        Ok(Some((opened, info))) => {
            worker.run(opened, info.asked_by(claim.cgroup_id), Some(flow));
        }
        Ok(None) => {
            let (cgroup_id, to) = (claim.cgroup_id, claim.original_dst);
            worker.refusals.suspect(Asked { cgroup_id, to }, client);
        }
        Err((near, refusal)) => {
            let refused = Refused {
                refusal,
                source: Some(route.parties.source),
                destination: Some(route.parties.destination),
            };
            refuse(worker, &near, client.socket_addr(), Some(&claim), refused);
        }
    }
}

/// `None` where the application has gone meanwhile. A refusal gives the application's socket
/// back, so that it can be reset.
type Opened = Result<Option<(Flow, FlowInfo)>, (TcpStream, Refusal)>;

async fn open_local(worker: &Worker, near: TcpStream, route: &Route, legs: Patience) -> Opened {
    match deliver(&worker.claims, &worker.sources, &route.parties).await {
        Ok(far) => {
            tighten(&far, legs);
            let info = FlowInfo::new(route.parties.clone(), Carriage::Local);
            Ok(Some((Flow::local(near, far), info)))
        }
        Err(refusal) => Err((near, refusal)),
    }
}

async fn open_remote(
    worker: &Worker,
    near: TcpStream,
    route: &Route,
    legs: Patience,
    until: Instant,
) -> Opened {
    let prepared = timeout_at(until.into(), first_flight::prepare(worker, route, legs)).await;
    let ready = match prepared.unwrap_or(Err(Refusal::LinkFailed)) {
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
        proof: Arc::clone(&ready.link.proof),
        suite: ready.link.suite,
    };
    let flow = ready.launch(worker, route, near).await?;
    let info = FlowInfo::new(route.parties.clone(), carriage);
    let info = FlowInfo {
        answer_by: until,
        ..info
    };
    Ok(flow.map(|flow| (flow, info)))
}

/// A leg that does not take the client's limits has died already, and says so by itself.
fn tighten(leg: &TcpStream, legs: Patience) {
    let _ = legs.tighten(leg);
}

/// The application sees a reset; the event says why. Whoever asks again is refused by connect(),
/// where that would come to the same.
fn refuse(
    worker: &Worker,
    near: &TcpStream,
    from: SocketAddr,
    claim: Option<&Claim>,
    refused: Refused,
) {
    // A connection that is gone already needs no reset.
    let _ = reset_on_close(near);
    if let Some(claim) = claim {
        let (cgroup_id, to) = (claim.cgroup_id, claim.original_dst);
        let client = SourceAddr::new(from);
        worker.learn(Asked { cgroup_id, to }, client, refused.refusal);
    }
    let destination = claim.map(|claim| claim.original_dst.socket_addr());
    worker.events.refused(from, destination, refused);
}
