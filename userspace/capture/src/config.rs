//! Where capture works, and with which addresses and ports.

use crate::error::ConfigError;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use kedge_abi::{ABI_VERSION, Address, Root, Slot, limits};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Everything that [`crate::Capture::start`] needs to know beside the object file.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// The programs are attached here and see every socket of the cgroups below.
    pub cgroup_root: PathBuf,
    /// kedged's own cgroup, below the root: never captured, guarded by rules of its own.
    pub daemon_cgroup: PathBuf,
    /// A directory on a BPF file system, for this daemon's pins alone.
    pub bpffs: PathBuf,
    /// Addresses, routed locally on the node, that captured connections are sent to.
    pub ipv4: Ipv4Net,
    pub ipv6: Ipv6Net,
    /// Worker w listens on this port + w.
    pub port_base: u16,
    pub workers: u16,
    /// Port of links and carriers.
    pub peer_port: u16,
    /// Places in the accept queue of each worker.
    pub queue_places: u32,
    /// Lets the programs log what they decide; read with [`crate::Capture::flush_logs`].
    pub debug: bool,
}

impl CaptureConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.workers == 0 || u32::from(self.workers) > limits::WORKERS {
            return Err(ConfigError::Workers {
                given: self.workers,
                max: limits::WORKERS,
            });
        }
        let ports = u32::from(self.port_base)..u32::from(self.port_base) + u32::from(self.workers);
        if ports.end > 0x1_0000 || self.port_base == 0 || ports.contains(&u32::from(self.peer_port))
        {
            return Err(ConfigError::Ports {
                port: self.port_base,
                workers: self.workers,
            });
        }
        if self.addresses() == 0 {
            let range = IpNet::V4(self.ipv4);
            return Err(ConfigError::Range { range });
        }
        Ok(())
    }

    /// Capture addresses of each worker: what the smaller of the two ranges has, without its
    /// first and last one, which IPv4 keeps for network and broadcast.
    pub(crate) fn addresses(&self) -> u32 {
        let of = |host_bits: u8| 1_u64.checked_shl(host_bits.into()).unwrap_or(u64::MAX);
        let v4 = of(32 - self.ipv4.prefix_len());
        let v6 = of(128_u8.saturating_sub(self.ipv6.prefix_len()).min(63));
        let usable = v4.min(v6).saturating_sub(2);
        u32::try_from(usable).map_or(limits::ADDRESSES, |n| n.min(limits::ADDRESSES))
    }

    /// The `index`th capture address of each family, counted from 0.
    fn capture_address(&self, index: u32) -> (Address, Address) {
        let v4 = u32::from(self.ipv4.network()) + 1 + index;
        let v6 = u128::from(self.ipv6.network()) + 1 + u128::from(index);
        let v6: IpAddr = Ipv6Addr::from(v6).into();
        (Address::v4(v4.to_be()), v6.into())
    }

    /// The slots of every worker, with their index.
    pub(crate) fn slots(&self, generation: u64) -> impl Iterator<Item = (u32, Slot)> {
        (0..u32::from(self.workers)).flat_map(move |worker| {
            (0..self.addresses()).map(move |index| {
                let (v4, v6) = self.capture_address(index);
                let slot = Slot {
                    scope: ROUTED,
                    generation,
                    v4,
                    v6,
                    port: u32::from(self.port_base) + worker,
                    worker,
                    #[cfg(feature = "abi-next")]
                    next: u64::MAX,
                };
                (worker * limits::ADDRESSES + index, slot)
            })
        })
    }

    pub(crate) fn root(&self, generation: u64, netns_cookie: u64) -> Root {
        let v4 = IpNet::V4(self.ipv4);
        let v6 = IpNet::V6(self.ipv6);
        Root {
            abi_version: ABI_VERSION,
            length: Root::LENGTH,
            generation,
            netns_cookie,
            workers: self.workers.into(),
            addresses: self.addresses(),
            capture_v4: v4.network().into(),
            capture_v4_mask: mask(v4),
            capture_v6: v6.network().into(),
            capture_v6_mask: mask(v6),
            port_base: self.port_base.into(),
            peer_port: self.peer_port.into(),
            queue_places: self.queue_places,
            round: 0,
        }
    }
}

/// Where the daemon itself answers a workload that asks for it: the first capture address of each
/// family, at the first capture port.
#[must_use]
pub fn probe_ends(ipv4: Ipv4Addr, ipv6: Ipv6Addr, port: u16) -> [SocketAddr; 2] {
    let v4 = Ipv4Addr::from(u32::from(ipv4) + 1);
    let v6 = Ipv6Addr::from(u128::from(ipv6) + 1);
    [
        SocketAddr::new(v4.into(), port),
        SocketAddr::new(v6.into(), port),
    ]
}

/// Scope of the routed way: the daemon sees every client's own address, so that a tuple is unique
/// on the node.
pub(crate) const ROUTED: u64 = 0;

/// The mask of a prefix in the mapped form.
fn mask(net: IpNet) -> Address {
    match net.netmask() {
        IpAddr::V4(v4) => {
            let ones = u32::MAX;
            Address::v6([ones, ones, ones, u32::from(v4).to_be()])
        }
        v6 @ IpAddr::V6(_) => v6.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn config() -> CaptureConfig {
        CaptureConfig {
            cgroup_root: "/".into(),
            daemon_cgroup: "/".into(),
            bpffs: "/".into(),
            ipv4: "169.254.76.0/22".parse().expect("literal"),
            ipv6: "fd6b:6564:6765::/118".parse().expect("literal"),
            port_base: 15001,
            workers: 2,
            peer_port: 15443,
            queue_places: 4_096,
            debug: false,
        }
    }

    #[test]
    fn every_slot_lies_in_its_range_and_no_two_are_the_same() {
        let config = config();
        let slots: Vec<_> = config.slots(1).collect();
        assert_eq!(slots.len(), 2 * 1022);
        for (_, slot) in &slots {
            let (IpAddr::V4(v4), IpAddr::V6(v6)) = (slot.v4.into(), slot.v6.into()) else {
                panic!("{slot:?}");
            };
            assert!(config.ipv4.contains(&v4) && config.ipv6.contains(&v6));
        }
        let places: HashSet<_> = slots.iter().map(|(_, s)| (s.v4, s.port)).collect();
        assert_eq!(places.len(), slots.len());
    }

    #[test]
    fn a_range_of_any_size_is_cut_to_the_slots_that_there_are() {
        let mut config = config();
        config.ipv4 = "10.0.0.0/8".parse().expect("literal");
        config.ipv6 = "fd6b:6564:6765::/48".parse().expect("literal");
        assert_eq!(config.addresses(), limits::ADDRESSES);
        config.ipv4 = "10.0.0.0/31".parse().expect("literal");
        assert!(config.validate().is_err());
    }

    #[test]
    fn the_peer_port_is_no_capture_port() {
        let mut config = config();
        config.peer_port = 15002;
        assert!(config.validate().is_err());
        config.workers = 1;
        assert!(config.validate().is_ok());
    }
}
