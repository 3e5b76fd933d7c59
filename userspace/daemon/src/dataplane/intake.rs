//! A captured connection, from accept() to its flow.

use crate::dataplane::classify::{Refused, Route, classify_captured, reclassify};
use crate::dataplane::delivery::deliver;
use crate::dataplane::flow::Flow;
use crate::dataplane::refusals::Asked;
use crate::dataplane::registry::{Carriage, FlowInfo};
use crate::dataplane::shares::Share;
use crate::dataplane::worker::Worker;
use crate::dataplane::{first_flight, patience, probe};
use crate::limits::{HOLD, LAST_WORDS, OPENING_PER_WORKER};
use kedge_capture::Claim;
use kedge_model::{Refusal, SourceAddr};
use kedge_sys::patience::Patience;
use kedge_sys::socket::reset_on_close;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{timeout, timeout_at};

/// Instead of a cgroup: of connections without a claim.
const NOBODY: u64 = 0;

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
pub fn admit(
    worker: &Worker,
    near: &TcpStream,
    from: SocketAddr,
    claim: Claim,
) -> Option<Admitted> {
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

/// # Errors
/// Whoever has no claim is to be [turned away](turn_away).
pub fn read_claim(worker: &Worker, near: &TcpStream) -> Result<Claim, Refusal> {
    let claim = worker.claims.of(near.as_fd());
    claim
        .map_err(|_| Refusal::Internal)?
        .ok_or(Refusal::NotCaptured)
}

/// Refuses a connection that nobody has filed, unless it turns out to be one that its client has
/// reset already: the programs took its claim back at once, while its last packets were under
/// way. They have counted it (`left_early`), and it is no alarm.
pub fn turn_away(worker: &Worker, near: TcpStream, from: SocketAddr, refusal: Refusal) {
    let Some(place) = worker.opening.take(NOBODY) else {
        return refuse(worker, &near, from, None, refusal.into());
    };
    let worker = worker.clone();
    spawn_local(async move {
        if !has_left(&near).await {
            refuse(&worker, &near, from, None, refusal.into());
        }
        drop(place);
    });
}

/// Whether the client's reset is here, or comes at once. One that ends, speaks or waits is there.
async fn has_left(near: &TcpStream) -> bool {
    matches!(timeout(LAST_WORDS, near.peek(&mut [0])).await, Ok(Err(_)))
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
    verdict.unwrap_or_else(|| classify_captured(&worker.world.load(), claim, client, pick))
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
        Err((near, refused)) => {
            let refused = Refused {
                source: Some(route.parties.source),
                destination: Some(route.parties.destination),
                ..refused
            };
            refuse(worker, &near, client.socket_addr(), Some(&claim), refused);
        }
    }
}

/// `None` where the application has gone meanwhile. A refusal gives the application's socket
/// back, so that it can be reset.
type Opened = Result<Option<(Flow, FlowInfo)>, (TcpStream, Refused)>;

async fn open_local(worker: &Worker, near: TcpStream, route: &Route, legs: Patience) -> Opened {
    match deliver(&worker.claims, &worker.sources, &route.parties).await {
        Ok(far) => {
            tighten(&far, legs);
            let info = FlowInfo::new(route.parties.clone(), Carriage::Local);
            Ok(Some((Flow::local(near, far), info)))
        }
        Err(refusal) => Err((near, refusal.into())),
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
        Err(refusal) => return Err((near, refusal.into())),
    };
    // What was allowed when the connection came may have moved, or been forbidden, while a link
    // was made: nothing leaves before the newest snapshot has been asked.
    let world = worker.world.load_full();
    if let Err(refusal) = reclassify(&world, &route.parties, (&world.node, &route.node)) {
        return Err((near, Refused::by(&world, refusal)));
    }
    let carriage = Carriage::Opener {
        proof: Arc::clone(&ready.link.proof),
        suite: ready.link.suite,
    };
    let launched = ready.launch(worker, route, near).await;
    let flow = launched.map_err(|(near, refusal)| (near, refusal.into()))?;
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
        worker.learn(Asked { cgroup_id, to }, client, &refused);
    }
    let destination = claim.map(|claim| claim.original_dst.socket_addr());
    worker.events.refused(from, destination, refused);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    async fn accepted() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let to = listener.local_addr().expect("bound");
        let client = TcpStream::connect(to).await.expect("connect");
        (client, listener.accept().await.expect("accept").0)
    }

    #[tokio::test]
    async fn only_a_client_that_has_reset_its_connection_has_left() {
        let (client, near) = accepted().await;
        reset_on_close(&client).expect("setsockopt");
        drop(client);
        assert!(has_left(&near).await, "reset");
        let (client, near) = accepted().await;
        drop(client);
        assert!(!has_left(&near).await, "ended");
        let (mut client, near) = accepted().await;
        assert!(!has_left(&near).await, "waits");
        client.write_all(b"x").await.expect("write");
        assert!(!has_left(&near).await, "speaks");
    }
}
