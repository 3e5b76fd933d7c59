//! Whether the workers do their work, as seen by another thread: one that hangs cannot say so.

use crate::dataplane::registry::Registry;
use crate::events::Events;
use crate::limits::BEAT;
use kedge_capture::Beats;
use std::sync::Arc;
use std::time::Duration;

/// Tells, once for each time, that a worker has not beaten for so long that connect() passes it
/// over. That it is back, it says itself.
pub async fn watch_workers(registries: Vec<Arc<Registry>>, events: Events) {
    let mut stalled = vec![false; registries.len()];
    let mut due = tokio::time::interval(BEAT);
    loop {
        due.tick().await;
        for ((worker, registry), was_stalled) in (0_u16..).zip(&registries).zip(&mut stalled) {
            let age = Duration::from_millis(registry.beat_age_ms());
            let is_stalled = age >= Beats::FRESH;
            if is_stalled && !*was_stalled {
                events.worker_stalled(worker, age);
            }
            *was_stalled = is_stalled;
        }
    }
}
