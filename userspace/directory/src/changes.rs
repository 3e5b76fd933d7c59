//! What differs between two directories, so that only what it touches is decided again.

use crate::entry::{Entries, Workload};
use kedge_model::{NodeName, SpiffeId};
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

/// One workload instance at one address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    pub uid: Arc<str>,
    pub id: SpiffeId,
    pub node: NodeName,
    pub address: IpAddr,
}

/// A placement that changed in any part is in both lists: as it was and as it is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Changes {
    pub added: Vec<Placement>,
    pub removed: Vec<Placement>,
    pub nodes_changed: bool,
    pub services_changed: bool,
}

impl Changes {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn between(old: &Entries, new: &Entries) -> Self {
        let was: HashSet<Placement> = old.workloads.iter().flat_map(placements).collect();
        let is: HashSet<Placement> = new.workloads.iter().flat_map(placements).collect();
        Self {
            added: sorted(is.difference(&was)),
            removed: sorted(was.difference(&is)),
            nodes_changed: old.nodes != new.nodes || old.managed != new.managed,
            services_changed: old.services != new.services,
        }
    }
}

fn placements(workload: &Workload) -> impl Iterator<Item = Placement> {
    workload.addresses.iter().map(|address| Placement {
        uid: workload.uid.clone(),
        id: workload.id.clone(),
        node: workload.node.clone(),
        address: *address,
    })
}

fn sorted<'p>(placements: impl Iterator<Item = &'p Placement>) -> Vec<Placement> {
    let mut placements: Vec<_> = placements.cloned().collect();
    placements.sort_by(|a, b| (&a.uid, a.address).cmp(&(&b.uid, b.address)));
    placements
}
