//! The last leg: from this node's daemon to a workload of this node, which sees the true client.

use crate::config::Capture;
use crate::dataplane::registry::Parties;
use crate::links::connected;
use ipnet::{Ipv4Net, Ipv6Net};
use kedge_capture::Claims;
use kedge_model::Refusal;
use kedge_sys::socket::{Dial, reset_on_close};
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::net::TcpStream;

/// The node's addresses that deliveries come from, each in its turn: those of the capture ranges,
/// to which a workload that can be captured has a route. From one address alone the ports towards
/// a busy server would run out, since each stays in TIME_WAIT for a minute after a client's end.
pub struct SourceAddresses {
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
    next: Cell<u32>,
}

impl SourceAddresses {
    pub fn new(capture: &Capture) -> Self {
        Self {
            ipv4: capture.ipv4,
            ipv6: capture.ipv6,
            next: Cell::new(0),
        }
    }

    /// One of the family of `to`; never the first or last of its range.
    fn towards(&self, to: IpAddr) -> IpAddr {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let within = |host_bits: u8| 1 + turn % ((1 << host_bits.clamp(2, 16)) - 2);
        match to {
            IpAddr::V4(_) => {
                let host = within(32 - self.ipv4.prefix_len());
                Ipv4Addr::from(u32::from(self.ipv4.network()) + host).into()
            }
            IpAddr::V6(_) => {
                let host = within(128 - self.ipv6.prefix_len());
                Ipv6Addr::from(u128::from(self.ipv6.network()) + u128::from(host)).into()
            }
        }
    }
}

/// Connects to the flow's endpoint. The programs are told by the socket's cookie, before its
/// first packet, whom the server shall see.
pub async fn deliver(
    claims: &Claims,
    sources: &SourceAddresses,
    parties: &Parties,
) -> Result<TcpStream, Refusal> {
    let to = parties.endpoint;
    let dial = Dial::from_source(sources.towards(to.ip()), to).map_err(|error| refusal(&error))?;
    let cookie = dial.cookie().map_err(|_| Refusal::Internal)?;
    claims
        .file_delivery(cookie, parties.client.socket_addr())
        .map_err(|_| Refusal::OverLimit)?;
    let started = dial.start().and_then(TcpStream::from_std);
    let stream = started.map_err(|error| {
        // The program that takes the entry may never have run.
        let _ = claims.withdraw_delivery(cookie);
        refusal(&error)
    })?;
    connected(&stream).await.map_err(|error| refusal(&error))?;
    // Should this process be killed, the workload must not take it for the client's end.
    reset_on_close(&stream).map_err(|error| refusal(&error))?;
    Ok(stream)
}

/// No descriptor is left (errno(3)).
const EMFILE: i32 = 24;

fn refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Refusal::WorkloadRefused,
        io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::ConnectionReset => Refusal::WorkloadUnreachable,
        _ if error.raw_os_error() == Some(EMFILE) => Refusal::OverLimit,
        _ => Refusal::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn deliveries_take_turns_among_the_usable_addresses_of_their_family() {
        let capture = Capture {
            ipv4: "169.254.76.0/29".parse().expect("literal"),
            ipv6: "fd6b::/118".parse().expect("literal"),
            ..Capture::default()
        };
        let sources = SourceAddresses::new(&capture);
        let to_v4 = "10.1.2.3".parse().expect("literal");
        let used: HashSet<_> = (0..100).map(|_| sources.towards(to_v4)).collect();
        let usable: HashSet<IpAddr> = capture.ipv4.hosts().map(IpAddr::from).collect();
        assert_eq!(used, usable);
        let to_v6 = "fd00::1".parse().expect("literal");
        let used: HashSet<_> = (0..2_000).map(|_| sources.towards(to_v6)).collect();
        assert_eq!(used.len(), 1_022);
        assert!(used.iter().all(|ip| match ip {
            IpAddr::V6(ip) => capture.ipv6.contains(ip),
            IpAddr::V4(_) => false,
        }));
    }
}
