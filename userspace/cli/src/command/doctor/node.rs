//! The kernel, and the network of this namespace, which must be kedged's.

use kedge_api::Finding;
use kedge_capture::Serving;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};

pub fn kernel() -> Vec<Finding> {
    let features = kedge_capture::probe_features();
    let missing = features.iter().filter(|feature| !feature.available);
    let mut findings: Vec<_> = missing
        .map(|feature| {
            let remedy = "run a kernel that has it, 6.1 or later, and kedge as root";
            Finding::fail("kernel", feature.name, &*feature.reason, remedy)
        })
        .collect();
    if findings.is_empty() {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let found = format!("takes all {} kinds of programs and helpers", features.len());
        findings.push(Finding::ok("kernel", release.trim(), found));
    }
    findings
}

pub fn network(serving: &Serving) -> Vec<Finding> {
    if kedge_capture::netns_cookie().ok() != Some(serving.netns_cookie) {
        return vec![Finding::fail(
            "network",
            "namespace",
            "this is not the network namespace of kedged: routes and listeners are not looked at",
            "run kedge doctor where kedged runs: nsenter --net --target PID kedge doctor",
        )];
    }
    let routes = serving.probe_ends().into_iter().zip(serving.ranges);
    let mut findings: Vec<_> = routes
        .map(|(end, range)| match is_local(end) {
            true => Finding::ok("route", range, "leads to this node itself"),
            false => Finding::fail(
                "route",
                range,
                "does not lead to this node itself: captured connections go astray",
                format!("ip route add local {range} dev lo, or restart kedged, which adds it"),
            ),
        })
        .collect();
    let capture = serving.ports.clone().map(|port| (port, "capture"));
    findings.extend(
        capture
            .chain([(serving.peer_port, "peer")])
            .map(|(port, role)| listener(port, role)),
    );
    findings.push(rp_filter());
    findings
}

/// The kernel chooses a source for what it would send there, which sends nothing. For an IPv6
/// destination it does not tell; the table does.
fn is_local(end: SocketAddr) -> bool {
    match end.ip() {
        IpAddr::V4(_) => {
            let chosen = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
                socket.connect(end)?;
                socket.local_addr()
            });
            chosen.is_ok_and(|chosen| chosen.ip() == end.ip())
        }
        IpAddr::V6(ip) => {
            let table = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
            table.lines().any(|line| is_local_route(line, ip.into()))
        }
    }
}

/// A line of /proc/net/ipv6_route: prefix and its bits first, in hexadecimal, the device last.
fn is_local_route(line: &str, address: u128) -> bool {
    let mut words = line.split_whitespace();
    let prefix = words.next().and_then(|w| u128::from_str_radix(w, 16).ok());
    let bits = words.next().and_then(|w| u32::from_str_radix(w, 16).ok());
    let (Some(prefix), Some(bits @ 1..=128)) = (prefix, bits) else {
        return false;
    };
    words.next_back() == Some("lo") && (prefix ^ address) >> (128 - bits) == 0
}

fn listener(port: u16, role: &str) -> Finding {
    let object = format!("{role} port {port}");
    let tables = ["/proc/net/tcp6", "/proc/net/tcp"].map(fs::read_to_string);
    let mut lines = tables.iter().flatten().flat_map(|table| table.lines());
    match lines.any(|line| is_listener(line, port)) {
        true => Finding::ok("listener", object, "is listened on"),
        false => Finding::fail(
            "listener",
            object,
            "nobody listens: workloads in require are refused",
            "start kedged, or look into its log why it ended",
        ),
    }
}

fn is_listener(line: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let local = words.next().unwrap_or_default();
    words.nth(1) == Some(LISTEN) && local.ends_with(&format!(":{port:04X}"))
}

/// Strict reverse-path filtering does not harm: pods' packets come in where their routes lead out.
fn rp_filter() -> Finding {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
    let [all, default] = ["all", "default"].map(|name| read(name).unwrap_or_default());
    let found = format!("all {}, default {}", all.trim(), default.trim());
    Finding::ok("rp_filter", "net.ipv4.conf", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_local_by_its_device_and_its_prefix() {
        let zero = "00000000000000000000000000000000";
        let line = format!(
            "fd6b6564676500000000000000000000 76 {zero} 00 {zero} 00000400 1 0 80000001       lo"
        );
        let address = |text: &str| u128::from(text.parse::<std::net::Ipv6Addr>().expect("literal"));
        assert!(is_local_route(&line, address("fd6b:6564:6765::1")));
        assert!(!is_local_route(&line, address("fd6b:6564:6765::1:1")));
        let elsewhere = line.replace("      lo", "    eth0");
        assert!(!is_local_route(&elsewhere, address("fd6b:6564:6765::1")));
        let default = line.replacen("76", "00", 1);
        assert!(!is_local_route(&default, address("fd6b:6564:6765::1")));
    }

    #[test]
    fn only_a_listener_of_that_port_counts() {
        let line = "   0: 00000000:3A99 00000000:0000 0A 00000000:00000000 00:00000000";
        assert!(is_listener(line, 15001));
        assert!(!is_listener(line, 15002));
        assert!(!is_listener(&line.replace(" 0A ", " 01 "), 15001));
    }
}
