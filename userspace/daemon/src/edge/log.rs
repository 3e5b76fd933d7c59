//! The last events, and whoever follows them.

use crate::limits::{EVENTS_PER_READER, EVENTS_REMEMBERED};
use kedge_api::Event;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, mpsc};

#[derive(Clone)]
pub struct EventLog(Arc<Shared>);

struct Shared {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Event>,
}

#[derive(Default)]
struct Kept {
    last_number: u64,
    events: VecDeque<Event>,
}

impl Default for EventLog {
    fn default() -> Self {
        let (live, _) = broadcast::channel(EVENTS_PER_READER);
        Self(Arc::new(Shared {
            kept: Mutex::default(),
            live,
        }))
    }
}

impl EventLog {
    /// Numbers, keeps and passes on what is reported, until the process ends.
    pub async fn collect(self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            self.add(event);
        }
    }

    pub fn add(&self, mut event: Event) {
        let mut kept = self.lock();
        kept.last_number += 1;
        event.number = kept.last_number;
        print(&event);
        if kept.events.len() == EVENTS_REMEMBERED {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Nobody follows: it is kept all the same.
        let _ = self.0.live.send(event);
    }

    /// Those that are kept after number `since`, and a receiver of all later ones.
    pub fn since(&self, since: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.lock();
        let past = kept
            .events
            .iter()
            .filter(|event| event.number > since)
            .cloned()
            .collect();
        (past, self.0.live.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The daemon's own log has every event too; what an event does not have is left out.
fn print(event: &Event) {
    tracing::info!(
        kind = event.kind.label(),
        source = event.source.as_ref().map(display),
        destination = event.destination.as_ref().map(display),
        client = event.client.map(display),
        asked = event.original_destination.map(display),
        peer = event.peer.as_ref().map(display),
        decided_by = event.decided_by.as_ref().map(display),
        "{}",
        event.cause
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_api::{EventKind, Timestamp};

    #[test]
    fn the_log_past_its_bound_forgets_the_oldest() {
        let log = EventLog::default();
        for _ in 0..EVENTS_REMEMBERED + 3 {
            log.add(Event::new(
                0,
                Timestamp::from_unix_s(0),
                EventKind::LinkUp,
                "x",
            ));
        }
        let (kept, _) = log.since(0);
        assert_eq!(kept.len(), EVENTS_REMEMBERED);
        assert_eq!(kept[0].number, 4);
        let (newest, _) = log.since(EVENTS_REMEMBERED as u64 + 2);
        assert_eq!(newest.len(), 1);
    }
}
