//! What is pinned and attached, as somebody finds it who is not the daemon: it may be dead.

use crate::bpf::{self, CgroupLink};
use crate::config::probe_ends;
use crate::error::CaptureError;
use crate::pins::Pins;
use crate::table::Mirror;
use ipnet::IpNet;
use kedge_abi::{Address, CgroupEntry, Root, class, kind, map, program};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;

/// Who serves, and where: what the programs go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    pub generation: u64,
    /// Network namespace of the daemon.
    pub netns_cookie: u64,
    /// Capture ranges, IPv4 and IPv6.
    pub ranges: [IpNet; 2],
    /// Capture ports, one a worker.
    pub ports: Range<u16>,
    pub peer_port: u16,
}

impl Serving {
    /// See [`crate::probe_ends`].
    #[must_use]
    pub fn probe_ends(&self) -> [SocketAddr; 2] {
        let [v4, v6] = self.ranges.map(|range| range.network());
        let (v4, v6) = match (v4, v6) {
            (IpAddr::V4(v4), IpAddr::V6(v6)) => (v4, v6),
            _ => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
        };
        probe_ends(v4, v6, self.ports.start)
    }
}

/// Where one of our programs is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub program: &'static str,
    /// Of the program that runs there now.
    pub program_id: u32,
    /// 0: the cgroup has gone, and with it the attachment.
    pub cgroup_id: u64,
    attach_type: u32,
}

/// A program that is attached to a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub id: u32,
    /// At most 15 bytes of it, as the kernel keeps them.
    pub name: String,
}

/// `None`: nothing serves below this folder.
///
/// # Errors
/// If a map is there and cannot be read.
pub fn serving(bpffs: &Path) -> Result<Option<Serving>, CaptureError> {
    Ok(newest(bpffs)?.map(|(_, root)| told(root)))
}

/// The newest generation that is more than begun.
fn newest(bpffs: &Path) -> Result<Option<(Pins, Root)>, CaptureError> {
    let generations = Pins::existing(bpffs);
    for pins in generations.map_err(CaptureError::system("list", bpffs.display()))? {
        if pins.map(map::ROOT).exists() {
            let root = pins.table::<u32, Root>(map::ROOT)?.look_up(&0);
            let root = root.map_err(CaptureError::system("read", map::ROOT))?;
            if let Some(root) = root.filter(|root| root.generation != 0) {
                return Ok(Some((pins, root)));
            }
        }
    }
    Ok(None)
}

fn told(root: Root) -> Serving {
    let range = |network: Address, mask: Address| {
        let (network, mask): (IpAddr, IpAddr) = (network.into(), mask_of(network, mask));
        IpNet::with_netmask(network, mask).unwrap_or(network.into())
    };
    let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Serving {
        generation: root.generation,
        netns_cookie: root.netns_cookie,
        ranges: [
            range(root.capture_v4, root.capture_v4_mask),
            range(root.capture_v6, root.capture_v6_mask),
        ],
        ports: port(root.port_base)..port(root.port_base + root.workers),
        peer_port: port(root.peer_port),
    }
}

/// A mask of IPv4 stands in the last word.
fn mask_of(network: Address, mask: Address) -> IpAddr {
    if network.is_v4() {
        return Address::v4(mask.v4_word_be()).into();
    }
    let bytes: [u8; 16] = zerocopy::transmute!(mask);
    IpAddr::V6(bytes.into())
}

/// Where our programs are attached; one without a pin is missing.
///
/// # Errors
/// If a pin cannot be opened.
pub fn hooks(bpffs: &Path) -> Result<Vec<Hook>, CaptureError> {
    let mut hooks = Vec::new();
    let Some((pins, _)) = newest(bpffs)? else {
        return Ok(hooks);
    };
    for program in program::ALL {
        let link = bpf::open_pinned(&pins.link(program)).and_then(|link| match link {
            Some(link) => bpf::cgroup_link(link.as_fd()).map(Some),
            None => Ok(None),
        });
        let link = link.map_err(CaptureError::system("look at", program))?;
        hooks.extend(link.map(|link: CgroupLink| Hook {
            program,
            program_id: link.program_id,
            cgroup_id: link.cgroup_id,
            attach_type: link.attach_type,
        }));
    }
    Ok(hooks)
}

/// The programs of the same hook that are attached to this very cgroup, in the order in which
/// they run.
///
/// # Errors
/// If the cgroup cannot be opened or asked.
pub fn attached(cgroup: &Path, hook: &Hook) -> io::Result<Vec<Attached>> {
    let directory = File::open(cgroup)?;
    let ids = bpf::programs_of(directory.as_fd(), hook.attach_type)?;
    let named = ids.into_iter().filter_map(|id| {
        // One that is gone by now is not attached any more.
        let name = bpf::name_of_program(id).ok()?;
        Some(Attached { id, name })
    });
    Ok(named.collect())
}

/// Ids of the cgroups whose connections are captured.
///
/// # Errors
/// If the map cannot be read.
pub fn captured_cgroups(bpffs: &Path) -> Result<Vec<u64>, CaptureError> {
    let Some((pins, _)) = newest(bpffs)? else {
        return Ok(Vec::new());
    };
    let known = Mirror::read(pins.table::<u64, CgroupEntry>(map::CGROUPS)?)
        .map_err(CaptureError::system("read", map::CGROUPS))?;
    let is_captured = |entry: &CgroupEntry| {
        entry.kind == kind::WORKLOAD && matches!(entry.class, class::PERMISSIVE | class::REQUIRE)
    };
    let captured = known.held().iter().filter(|(_, entry)| is_captured(entry));
    let mut ids: Vec<_> = captured.map(|(id, _)| *id).collect();
    ids.sort_unstable();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CaptureConfig;

    #[test]
    fn what_a_daemon_writes_is_found_again() {
        let config = CaptureConfig {
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
        };
        let serving = told(config.root(7, 42));
        assert_eq!(serving.ranges, [config.ipv4.into(), config.ipv6.into()]);
        assert_eq!((serving.generation, serving.netns_cookie), (7, 42));
        assert_eq!(
            (serving.ports.clone(), serving.peer_port),
            (15001..15003, 15443)
        );
        let ends = probe_ends(config.ipv4.network(), config.ipv6.network(), 15001);
        assert_eq!(serving.probe_ends(), ends);
    }
}
