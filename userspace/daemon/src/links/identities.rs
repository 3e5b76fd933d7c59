//! Which workload identities may be named on a link, by handle, in both directions.

use kedge_link::Handle;
use kedge_model::{Refusal, SpiffeId};
use std::collections::HashMap;

/// Each map is bounded by the session, which refuses to exchange more identities than its limit.
#[derive(Default)]
pub struct Identities {
    ours: HashMap<SpiffeId, Ours>,
    ours_by_handle: HashMap<Handle, SpiffeId>,
    theirs: HashMap<SpiffeId, Handle>,
    theirs_by_handle: HashMap<Handle, SpiffeId>,
    refused: HashMap<SpiffeId, Refusal>,
}

struct Ours {
    handle: Handle,
    accepted: bool,
}

impl Identities {
    pub fn announced_by_us(&mut self, id: &SpiffeId, handle: Handle) {
        let known = self.ours.entry(id.clone()).or_insert(Ours {
            handle,
            accepted: false,
        });
        if known.handle != handle {
            *known = Ours {
                handle,
                accepted: false,
            };
        }
        self.ours_by_handle.insert(handle, id.clone());
    }

    /// A handle that a newer announcement has replaced stays unaccepted.
    pub fn accepted_by_peer(&mut self, handle: Handle) {
        let id = self.ours_by_handle.get(&handle);
        let ours = id.and_then(|id| self.ours.get_mut(id));
        if let Some(ours) = ours.filter(|ours| ours.handle == handle) {
            ours.accepted = true;
        }
    }

    pub fn announced_by_peer(&mut self, id: SpiffeId, handle: Handle) {
        self.refused.remove(&id);
        self.theirs.insert(id.clone(), handle);
        self.theirs_by_handle.insert(handle, id);
    }

    pub fn refused_by_peer(&mut self, id: SpiffeId, refusal: Refusal) {
        self.ours.remove(&id);
        self.refused.insert(id, refusal);
    }

    /// Forgets an earlier refusal, since we are about to ask again.
    pub fn forget_refusal(&mut self, id: &SpiffeId) {
        self.refused.remove(id);
    }

    pub fn refusal_of(&self, id: &SpiffeId) -> Option<Refusal> {
        self.refused.get(id).copied()
    }

    /// The handles under which a flow from `source` to `destination` may be opened, once both
    /// are proven.
    pub fn pair(&self, source: &SpiffeId, destination: &SpiffeId) -> Option<(Handle, Handle)> {
        let ours = self.ours.get(source).filter(|ours| ours.accepted)?;
        Some((ours.handle, *self.theirs.get(destination)?))
    }

    pub fn ours_of(&self, handle: Handle) -> Option<SpiffeId> {
        self.ours_by_handle.get(&handle).cloned()
    }

    pub fn theirs_of(&self, handle: Handle) -> Option<SpiffeId> {
        self.theirs_by_handle.get(&handle).cloned()
    }

    pub fn counts(&self) -> (usize, usize) {
        (self.ours.len(), self.theirs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://td/ns/x/sa/{name}")).expect("literal")
    }

    #[test]
    fn no_flow_names_identities_before_both_are_proven() {
        let mut identities = Identities::default();
        identities.announced_by_us(&id("client"), Handle(1));
        assert_eq!(identities.pair(&id("client"), &id("web")), None);
        identities.announced_by_peer(id("web"), Handle(7));
        assert_eq!(identities.pair(&id("client"), &id("web")), None);
        identities.accepted_by_peer(Handle(1));
        assert_eq!(
            identities.pair(&id("client"), &id("web")),
            Some((Handle(1), Handle(7)))
        );
    }

    #[test]
    fn a_refused_identity_is_not_used_until_it_is_accepted_anew() {
        let mut identities = Identities::default();
        identities.announced_by_us(&id("client"), Handle(1));
        identities.accepted_by_peer(Handle(1));
        identities.announced_by_peer(id("web"), Handle(7));
        identities.refused_by_peer(id("client"), Refusal::Misplaced);
        assert_eq!(identities.pair(&id("client"), &id("web")), None);
        assert_eq!(
            identities.refusal_of(&id("client")),
            Some(Refusal::Misplaced)
        );
        identities.announced_by_us(&id("client"), Handle(2));
        identities.accepted_by_peer(Handle(1));
        assert_eq!(identities.pair(&id("client"), &id("web")), None);
    }
}
