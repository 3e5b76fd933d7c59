//! Handles of workload identities, per link and sender. A number stands for one identity, ever.

use crate::error::{LinkError, PeerMisbehaved};
use crate::limits::IDENTITIES_MAX;
use crate::wire::Handle;
use kedge_model::SpiffeId;
use std::collections::HashMap;

#[derive(Default)]
pub(crate) struct Identities {
    /// What we announced and the peer did not reject.
    ours: HashMap<SpiffeId, Handle>,
    our_last: u64,
    their_last: u64,
}

impl Identities {
    /// Our handle for `id`, and whether it is new, so that the peer has to be told.
    pub(crate) fn announce(&mut self, id: &SpiffeId) -> Result<(Handle, bool), LinkError> {
        if let Some(handle) = self.ours.get(id) {
            return Ok((*handle, false));
        }
        if self.our_last >= IDENTITIES_MAX as u64 {
            return Err(LinkError::OverLimit {
                what: "identities",
                limit: IDENTITIES_MAX,
            });
        }
        self.our_last += 1;
        let handle = Handle(self.our_last);
        self.ours.insert(id.clone(), handle);
        Ok((handle, true))
    }

    /// The peer rejected our handle: announcing that identity again takes a new one.
    pub(crate) fn rejected(&mut self, handle: Handle) -> Result<(), PeerMisbehaved> {
        self.check_ours(handle)?;
        self.ours.retain(|_, ours| *ours != handle);
        Ok(())
    }

    pub(crate) fn check_ours(&self, handle: Handle) -> Result<(), PeerMisbehaved> {
        if (1..=self.our_last).contains(&handle.0) {
            return Ok(());
        }
        Err(PeerMisbehaved::UnknownHandle(handle))
    }

    /// The peer announced `handle`. Its handles count up by one from 1.
    pub(crate) fn announced(&mut self, handle: Handle) -> Result<(), PeerMisbehaved> {
        if handle.0 != self.their_last + 1 {
            return Err(PeerMisbehaved::HandleReused(handle));
        }
        if handle.0 > IDENTITIES_MAX as u64 {
            let limit = IDENTITIES_MAX;
            return Err(PeerMisbehaved::TooMany {
                what: "identities",
                limit,
            });
        }
        self.their_last = handle.0;
        Ok(())
    }

    pub(crate) fn check_theirs(&self, handle: Handle) -> Result<(), LinkError> {
        if (1..=self.their_last).contains(&handle.0) {
            return Ok(());
        }
        Err(LinkError::ApiMisuse("the peer never announced this handle"))
    }
}
