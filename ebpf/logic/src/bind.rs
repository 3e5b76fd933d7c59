//! Which ports are kept for kedged.

use crate::cgroup::Owner;
use crate::tables::is_capture_port;
use kedge_abi::Root;

/// Whether `port` is kept from `owner`: the capture ports and the peer port, in the daemon's
/// network namespace, with the daemon dead too. Otherwise whoever came first after its death
/// would be given captured connections.
#[inline(always)]
pub fn is_kept(root: &Root, netns_cookie: u64, owner: Option<&Owner>, port: u32) -> bool {
    root.netns_cookie != 0
        && root.netns_cookie == netns_cookie
        && (is_capture_port(root, port) || port == root.peer_port)
        && !owner.is_some_and(Owner::is_daemon)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use kedge_abi::{class, kind};

    const DAEMON: Owner = Owner {
        id: 1,
        class: class::DAEMON,
        kind: kind::DAEMON,
        level: None,
    };
    const WORKLOAD: Owner = Owner {
        id: 2,
        class: class::OFF,
        kind: kind::WORKLOAD,
        level: None,
    };

    #[test]
    fn capture_and_peer_ports_are_the_daemons_alone() {
        let root = World::new().root;
        for port in [15001, 15032, 15443] {
            assert!(is_kept(&root, root.netns_cookie, None, port));
            assert!(is_kept(&root, root.netns_cookie, Some(&WORKLOAD), port));
            assert!(!is_kept(&root, root.netns_cookie, Some(&DAEMON), port));
        }
        for port in [0, 80, 15000, 15033, 15442] {
            assert!(!is_kept(&root, root.netns_cookie, None, port), "{port}");
        }
    }

    #[test]
    fn a_pods_own_network_has_all_its_ports() {
        let root = World::new().root;
        assert!(!is_kept(&root, root.netns_cookie + 1, None, 15001));
    }
}
