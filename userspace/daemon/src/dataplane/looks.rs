//! Looks at places that have refused, so that nobody has to be refused to find out that they
//! are back: once a second, while somebody asks for them. A look is a flow without a byte, opened
//! for the workload that was refused and decided like any other; the server sees a connection
//! that is closed at once, as by a TCP health check.

use crate::dataplane::classify::{Refused, Route, classify_captured};
use crate::dataplane::delivery::deliver;
use crate::dataplane::first_flight;
use crate::dataplane::refusals::Asked;
use crate::dataplane::worker::Worker;
use crate::limits::{LOOK_TICK, LOOK_TIMEOUT};
use crate::world::World;
use kedge_capture::Claim;
use kedge_model::{Refusal, SourceAddr};
use kedge_sys::patience::Patience;
use std::future::pending;
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Keeps the node's refusals true until the process ends; one worker does that for all.
pub async fn keep(worker: Worker) {
    let mut changes = worker.world.changes();
    let mut tick = interval(LOOK_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changed = async {
            if changes.changed().await.is_err() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => decide_again(&worker),
            _ = tick.tick() => {
                for (asked, client) in worker.refusals.due() {
                    spawn_local(look(worker.clone(), asked, client));
                }
            }
        }
    }
}

/// A new snapshot may allow what the one before refused.
fn decide_again(worker: &Worker) {
    let world = worker.world.load();
    let refused = |asked: &Asked, client| {
        let mut picks = 0..choices(&world, asked);
        picks.all(|pick| classify(&world, asked, client, pick).is_err())
    };
    worker.refusals.decide_again(refused);
}

async fn look(worker: Worker, asked: Asked, client: SourceAddr) {
    let looked = timeout(LOOK_TIMEOUT, look_everywhere(&worker, &asked, client));
    let looked = looked
        .await
        .unwrap_or(Err(Refusal::WorkloadUnreachable.into()));
    worker.refusals.settle(asked, looked);
}

/// One endpoint of a service that answers is enough.
async fn look_everywhere(
    worker: &Worker,
    asked: &Asked,
    client: SourceAddr,
) -> Result<(), Refused> {
    let mut last = Err(Refusal::NoEndpoint.into());
    let picks = choices(&worker.world.load(), asked);
    for pick in 0..picks {
        let route = classify(&worker.world.load(), asked, client, pick);
        last = match route {
            Ok(route) => knock(worker, &route).await.map_err(Refused::from),
            Err(refused) => Err(refused),
        };
        if last.is_ok() {
            break;
        }
    }
    last
}

/// At least one: a place that is nowhere is refused with its reason.
fn choices(world: &World, asked: &Asked) -> u64 {
    world.directory.choices(asked.to).max(1) as u64
}

fn classify(world: &World, asked: &Asked, client: SourceAddr, pick: u64) -> Result<Route, Refused> {
    let claim = Claim {
        original_dst: asked.to,
        cgroup_id: asked.cgroup_id,
        lineage: Default::default(),
        socket_cookie: 0,
        netns_cookie: 0,
        patience: Default::default(),
    };
    classify_captured(world, &claim, client, pick)
}

async fn knock(worker: &Worker, route: &Route) -> Result<(), Refusal> {
    worker.events.looked();
    if route.node == worker.world.load().node {
        return deliver(&worker.claims, &worker.sources, &route.parties)
            .await
            .map(drop);
    }
    let ready = first_flight::prepare(worker, route, Patience::OURS).await?;
    ready.knock(worker, route).await
}
