//! TCP connections of workloads in `require` that are older than the mode: no program captured
//! them, and the guard drops what they say.

use crate::config::Config;
use crate::limits::{PROCESSES_LOOKED_AT, SOCKETS_LISTED};
use crate::processes::{Budget, Processes};
use crate::world::World;
use kedge_api::{Socket, Sockets};
use kedge_directory::Workload;
use kedge_model::{Mode, canonical};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Of all workloads of this node. Reads files of many processes: not for a runtime's own thread.
pub fn list(config: &Config, world: &World) -> Sockets {
    let local = world.directory.workloads_on(&world.node);
    let required = local.filter(|workload| mode(world, workload) == Mode::Require);
    of(config, world, required)
}

/// Of these workloads only.
pub fn of<'w>(
    config: &Config,
    world: &World,
    workloads: impl Iterator<Item = &'w Workload>,
) -> Sockets {
    let services = world.directory.services().iter();
    let mut look = Look {
        world,
        services: services
            .flat_map(|service| service.addresses.clone())
            .collect(),
        budget: Budget::new(PROCESSES_LOOKED_AT),
        networks: HashMap::new(),
        found: Sockets {
            sockets: Vec::new(),
            unseen: 0,
            truncated: false,
        },
    };
    for workload in workloads {
        look.at(&config.cgroup_root, workload);
    }
    look.found
}

pub fn mode(world: &World, workload: &Workload) -> Mode {
    world.policy.mode_of(&workload.id, &workload.addresses)
}

struct Look<'w> {
    world: &'w World,
    /// Their addresses, which need not be in a managed prefix.
    services: HashSet<IpAddr>,
    budget: Budget,
    /// What is plaintext in each network namespace.
    networks: HashMap<PathBuf, Plaintext>,
    found: Sockets,
}

/// Local, remote.
type Ends = (SocketAddr, SocketAddr);
/// By inode.
type Plaintext = HashMap<u64, Ends>;

impl Look<'_> {
    fn at(&mut self, cgroup_root: &Path, workload: &Workload) {
        let processes = Processes::of(&cgroup_root.join(&workload.cgroup), &mut self.budget);
        self.found.unseen += processes.unseen;
        let (world, services) = (self.world, &self.services);
        let dropped = |(_, ends): &(u64, Ends)| is_dropped(world, services, ends);
        for pid in &processes.pids {
            // One that has ended has none.
            let Ok(network) = fs::read_link(format!("/proc/{pid}/ns/net")) else {
                continue;
            };
            let plaintext = match self.networks.entry(network) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(connections(pid).filter(dropped).collect()),
            };
            // A socket is told once, whoever else has it open.
            for inode in open_sockets(pid, plaintext) {
                if let Some(ends) = plaintext.remove(&inode) {
                    add(&mut self.found, workload, pid, ends);
                }
            }
        }
    }
}

fn add(found: &mut Sockets, workload: &Workload, pid: &str, (local, remote): Ends) {
    if found.sockets.len() == SOCKETS_LISTED {
        found.truncated = true;
        return;
    }
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    found.sockets.push(Socket {
        uid: workload.uid.to_string(),
        id: workload.id.clone(),
        local,
        remote,
        pid: pid.parse().unwrap_or_default(),
        command: command.trim_end().to_owned(),
    });
}

/// Inodes of the sockets that a process has open; where none can matter, none.
fn open_sockets(pid: &str, plaintext: &Plaintext) -> Vec<u64> {
    if plaintext.is_empty() {
        return Vec::new();
    }
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let inode = |descriptor: fs::DirEntry| {
        let target = fs::read_link(descriptor.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?;
        inode.strip_suffix(']')?.parse().ok()
    };
    descriptors.flatten().filter_map(inode).collect()
}

/// What the guard of a workload in `require` drops: everything with a place that its connect()
/// would not pass. The kernel's own addresses of a captured connection are of the capture range,
/// at either end.
fn is_dropped(world: &World, services: &HashSet<IpAddr>, (local, remote): &Ends) -> bool {
    let (local, remote) = (local.ip(), remote.ip());
    let directory = &world.directory;
    let is_managed = directory
        .managed()
        .iter()
        .any(|prefix| prefix.contains(&remote));
    let is_known = || directory.workload_at(remote).is_some() || services.contains(&remote);
    local != remote && (is_managed || is_known())
}

/// All of a process's network namespace.
fn connections(pid: &str) -> impl Iterator<Item = (u64, Ends)> {
    let tables = ["tcp", "tcp6"].map(|name| File::open(format!("/proc/{pid}/net/{name}")));
    let lines = tables
        .into_iter()
        .flatten()
        .flat_map(|table| BufReader::new(table).lines().map_while(Result::ok));
    lines.filter_map(|line| connection(&line))
}

/// One line of /proc/net/tcp or tcp6 (proc(5)), unless it is about no connection of a process.
fn connection(line: &str) -> Option<(u64, Ends)> {
    /// TCP_SYN_RECV, TIME_WAIT, CLOSE, LISTEN, NEW_SYN_RECV (include/net/tcp_states.h).
    const NONE: [&str; 5] = ["03", "06", "07", "0A", "0C"];
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (end(fields.next()?)?, end(fields.next()?)?);
    let state = fields.next()?;
    let inode = fields.nth(5)?.parse().ok()?;
    (inode != 0 && !NONE.contains(&state)).then_some((inode, (local, remote)))
}

/// An address is words in the order of this machine, each in the order of the network.
fn end(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()
        }
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(canonical(SocketAddr::new(ip, port)))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    fn told(state: &str, inode: &str) -> String {
        format!(
            "   1: 0A01F40A:9C40 3202F40A:1B58 {state} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0000000000000000 20 4 0 10 -1"
        )
    }

    #[test]
    fn an_open_connection_is_read_with_its_inode() {
        let (inode, (local, remote)) = connection(&told("01", "4711")).expect("a connection");
        assert_eq!(inode, 4711);
        assert_eq!(local, "10.244.1.10:40000".parse().expect("literal"));
        assert_eq!(remote, "10.244.2.50:7000".parse().expect("literal"));
    }

    #[test]
    fn a_listener_a_heading_and_what_no_process_has_are_none() {
        for line in [told("0A", "4711"), told("01", "0"), told("06", "0")] {
            assert_eq!(connection(&line), None, "{line}");
        }
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(connection(heading), None);
        assert_eq!(connection(""), None);
    }

    #[test]
    fn ipv6_is_read_word_by_word_and_a_mapped_address_as_ipv4() {
        assert_eq!(
            end("000000FD000044020000000032000000:1B58").map(|end| end.port()),
            Some(7000)
        );
        let loopback = end("00000000000000000000000001000000:0050");
        assert_eq!(loopback, "[::1]:80".parse().ok());
        let mapped = end("0000000000000000FFFF00000A01F40A:0050");
        assert_eq!(mapped, "10.244.1.10:80".parse().ok());
    }
}
