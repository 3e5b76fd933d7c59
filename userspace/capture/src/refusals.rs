//! What the daemon has learnt that connect() would come to: the programs repeat it.

use crate::capture::now_ns;
use crate::table::Table;
use kedge_abi::{Refusal as Filed, RefusalKey};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What connect() fails with, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub errno: u16,
    /// The code that events of it carry ([`crate::CaptureEvent::reason`]).
    pub reason: u16,
}

/// A cheap handle on the table of refusals.
#[derive(Clone, Debug)]
pub struct Refusals(Table<RefusalKey, Filed>);

impl Refusals {
    pub(crate) fn new(table: Table<RefusalKey, Filed>) -> Self {
        Self(table)
    }

    /// From now on, and for so long, connect() of this cgroup to `asked` fails.
    ///
    /// # Errors
    /// If the map is full or cannot be written.
    pub fn file(
        &self,
        cgroup_id: u64,
        asked: SocketAddr,
        refusal: Refusal,
        valid: Duration,
    ) -> io::Result<()> {
        let key = key(cgroup_id, asked);
        let valid_ns = u64::try_from(valid.as_nanos()).map_err(io::Error::other)?;
        let asked_ns = self.0.look_up(&key)?.map_or(0, |filed| filed.asked_ns);
        let filed = Filed {
            valid_until_ns: now_ns()?.saturating_add(valid_ns),
            asked_ns,
            errno: refusal.errno,
            reason: refusal.reason,
            reserved: 0,
        };
        self.0.insert(&key, &filed)
    }

    /// How long ago connect() last failed by this refusal; `None`: it has not yet, or there is no
    /// such refusal.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn last_asked(&self, cgroup_id: u64, asked: SocketAddr) -> io::Result<Option<Duration>> {
        let filed = self.0.look_up(&key(cgroup_id, asked))?;
        let now = now_ns()?;
        Ok(filed
            .filter(|filed| filed.asked_ns != 0)
            .map(|filed| Duration::from_nanos(now.saturating_sub(filed.asked_ns))))
    }

    /// connect() goes to the daemon again.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn withdraw(&self, cgroup_id: u64, asked: SocketAddr) -> io::Result<()> {
        self.0.remove(&key(cgroup_id, asked)).map(drop)
    }
}

fn key(cgroup_id: u64, asked: SocketAddr) -> RefusalKey {
    RefusalKey {
        cgroup_id,
        asked: asked.into(),
        reserved: 0,
    }
}
