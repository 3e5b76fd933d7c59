//! What verdicts are made of: one immutable snapshot of directory, policy and local cgroups.
//! Workers load it without a lock; control replaces it as a whole.

use crate::tables::Tables;
use arc_swap::{ArcSwap, Guard};
use kedge_api::Versions;
use kedge_directory::{Directory, Workload};
use kedge_model::{NodeName, SpiffeId, TrustDomain};
use kedge_policy::Policy;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

pub struct World {
    pub node: NodeName,
    pub trust_domain: TrustDomain,
    pub directory: Directory,
    pub policy: Policy,
    /// Cgroup id of each local workload that has a cgroup by now → its uid.
    pub cgroups: HashMap<u64, Arc<str>>,
}

impl World {
    /// What every verdict by this snapshot is told to be decided by.
    pub fn versions(&self) -> Versions {
        Versions {
            directory: self.directory.version(),
            policy: self.policy.version(),
        }
    }

    /// The local workload that runs in this cgroup.
    pub fn workload_in(&self, cgroup_id: u64) -> Option<&Workload> {
        let uid = self.cgroups.get(&cgroup_id)?;
        self.directory.workload_by_uid(uid)
    }

    /// Whether a workload with this identity is placed on this node.
    pub fn is_ours(&self, id: &SpiffeId) -> bool {
        self.directory
            .workloads_on(&self.node)
            .any(|workload| workload.id == *id)
    }
}

/// The present snapshot, and its changes.
#[derive(Clone)]
pub struct SharedWorld {
    shared: Arc<Shared>,
}

struct Shared {
    current: ArcSwap<World>,
    changes: watch::Sender<u64>,
    wanted: Notify,
    tables: Tables,
}

impl SharedWorld {
    pub fn new(world: World) -> Self {
        Self {
            shared: Arc::new(Shared {
                current: ArcSwap::from_pointee(world),
                changes: watch::Sender::new(1),
                wanted: Notify::new(),
                tables: Tables::default(),
            }),
        }
    }

    pub fn load(&self) -> Guard<Arc<World>> {
        self.shared.current.load()
    }

    pub fn replace(&self, world: World) {
        self.shared.current.store(Arc::new(world));
        self.shared.changes.send_modify(|version| *version += 1);
    }

    /// What a flow rests on has changed outside the snapshot: everything is decided again.
    pub fn decide_again(&self) {
        self.shared.changes.send_modify(|version| *version += 1);
    }

    /// What the programs decide by, which have a new snapshot a little later than we.
    pub fn tables(&self) -> &Tables {
        &self.shared.tables
    }

    /// For a while: what must not change while it is looked at.
    pub fn load_full(&self) -> Arc<World> {
        self.shared.current.load_full()
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Grows with every replacement.
    pub fn version(&self) -> u64 {
        *self.shared.changes.borrow()
    }

    /// Looks again after every change until `look` finds something, or the time is over. Control
    /// is asked to read its sources at once.
    pub async fn wait_for<T>(
        &self,
        bound: Duration,
        look: impl Fn(&World) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.shared.changes.subscribe();
        let found = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look(&self.load()) {
                    return found;
                }
                self.shared.wanted.notify_one();
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(bound, found).await.ok()
    }

    /// Until somebody waits for something that the snapshot does not have.
    pub async fn wanted(&self) {
        self.shared.wanted.notified().await;
    }
}
