//! Authority over open flows: whatever changes in the snapshot, or in what their peers have proven,
//! decides them again, and those that are no longer allowed are reset, with the reason.

use crate::dataplane::classify::reclassify;
use crate::dataplane::registry::{FlowInfo, Registry};
use crate::limits::DECISIONS_PER_TURN;
use crate::world::SharedWorld;
use std::sync::Arc;

/// Decides all flows of a worker after each change, until the process ends.
pub async fn follow(world: SharedWorld, registry: Arc<Registry>) {
    let mut changes = world.changes();
    while changes.changed().await.is_ok() {
        for (decided, (_, info)) in registry.list().iter().enumerate() {
            decide(&world, info);
            if decided % DECISIONS_PER_TURN == DECISIONS_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Decides one flow by the newest snapshot.
pub fn decide(world: &SharedWorld, info: &FlowInfo) {
    let world = world.load();
    let nodes = info.carriage.nodes(&world.node);
    let proven = info.carriage.proof().map_or(Ok(()), |proof| proof.holds());
    if let Err(refusal) = proven {
        info.withdrawal.withdraw(refusal, None);
    } else if let Err(refusal) = reclassify(&world, &info.parties, nodes) {
        info.withdrawal.withdraw(refusal, Some(world.versions()));
    }
}
