//! What the workers ask of the kernel for single connections: read a claim, file a delivery.

use crate::table::Table;
use kedge_abi::limits::LINEAGE;
use kedge_abi::{Claim as Filed, Client};
use kedge_model::OriginalDst;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What is known about a captured connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What the application asked for.
    pub original_dst: OriginalDst,
    /// Nearest configured ancestor of the connecting task's cgroup.
    pub cgroup_id: u64,
    /// If that is a managed root: the task's cgroups below it, from the root's child on.
    pub lineage: [u64; LINEAGE],
    /// Cookie of the application's socket.
    pub socket_cookie: u64,
    /// Network namespace of the application's socket.
    pub netns_cookie: u64,
    pub patience: Patience,
}

/// How long the application's own socket waits for a peer that says nothing, as it stood at
/// connect(). `None`: it has set nothing, or the kernel's programs cannot ask (before Linux 6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// TCP_USER_TIMEOUT (RFC 5482).
    pub user_timeout: Option<Duration>,
    pub keepalive: Option<Keepalive>,
}

/// SO_KEEPALIVE and what tcp(7) has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub idle: Duration,
    pub interval: Duration,
    pub probes: u32,
}

impl From<kedge_abi::Patience> for Patience {
    fn from(filed: kedge_abi::Patience) -> Self {
        let seconds = |count| Duration::from_secs(u64::from(count));
        let set = Duration::from_millis(u64::from(filed.user_timeout_ms));
        Self {
            user_timeout: (!set.is_zero()).then_some(set),
            keepalive: (filed.keepalive_probes != 0).then_some(Keepalive {
                idle: seconds(filed.keepalive_idle_s),
                interval: seconds(filed.keepalive_interval_s),
                probes: filed.keepalive_probes,
            }),
        }
    }
}

impl Claim {
    /// The cgroups that may be a workload's, the nearest first.
    pub fn cgroups(&self) -> impl Iterator<Item = u64> {
        let lineage = self.lineage.into_iter().rev().filter(|id| *id != 0);
        lineage.chain([self.cgroup_id])
    }
}

/// A cheap handle on the tables of single connections; every worker has its own clone.
#[derive(Clone, Debug)]
pub struct Claims {
    accepted: Table<i32, Filed>,
    deliveries: Table<u64, Client>,
}

impl Claims {
    pub(crate) fn new(accepted: Table<i32, Filed>, deliveries: Table<u64, Client>) -> Self {
        Self {
            accepted,
            deliveries,
        }
    }

    /// What was filed for this accepted connection. It is kept with the socket: no other
    /// connection has it, whatever ports are used again. `None`: no program redirected this
    /// connection, so refuse it.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn of(&self, accepted: BorrowedFd<'_>) -> io::Result<Option<Claim>> {
        let filed = self.accepted.look_up(&accepted.as_raw_fd())?;
        Ok(filed.map(|filed| Claim {
            original_dst: OriginalDst::new(filed.asked.into()),
            cgroup_id: filed.cgroup_id,
            lineage: filed.lineage,
            socket_cookie: filed.socket_cookie,
            netns_cookie: filed.netns_cookie,
            patience: filed.patience.into(),
        }))
    }

    /// Says, before connect(), whom the server shall see instead of the daemon's socket with this
    /// cookie. The entry goes when the socket closes; a socket that never calls connect() needs
    /// [`Claims::withdraw_delivery`].
    ///
    /// # Errors
    /// If the map is full: the connection must not be made, since nobody would admit it.
    pub fn file_delivery(&self, socket_cookie: u64, true_client: SocketAddr) -> io::Result<()> {
        let client = Client {
            socket_cookie,
            client: true_client.into(),
            reserved: 0,
        };
        self.deliveries.insert(&socket_cookie, &client)
    }

    /// Takes back what [`Claims::file_delivery`] filed, if it is still there.
    ///
    /// # Errors
    /// If the map cannot be written.
    pub fn withdraw_delivery(&self, socket_cookie: u64) -> io::Result<()> {
        self.deliveries.remove(&socket_cookie).map(drop)
    }
}
