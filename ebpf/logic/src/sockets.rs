//! The two ends of a socket, as sock_ops shows them, in one form.

use kedge_abi::{Address, Claim, Endpoint, claim, limits};

pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;

/// State of a socket whose SYN has no answer yet (enum in include/net/tcp_states.h).
const SYN_SENT: u32 = 2;

/// What becomes of the tuple of a new claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filing {
    /// It is the claim's.
    File,
    /// It is nobody's: two network namespaces have a socket of this tuple.
    Dispute,
}

/// Two sockets cannot have the same tuple at once, unless two namespaces share an address. Whose
/// the connection is cannot be told then, so it is nobody's, until neither can be under way any
/// more. In one namespace the earlier socket is gone.
#[inline(always)]
#[must_use]
pub fn filing(earlier: Option<&Claim>, claim: &Claim) -> Filing {
    match earlier {
        Some(earlier) if earlier.state == claim::DISPUTED => {
            match claim.filed_ns.saturating_sub(earlier.filed_ns) < limits::DISPUTE_NS {
                true => Filing::Dispute,
                false => Filing::File,
            }
        }
        Some(earlier) if earlier.netns_cookie != claim.netns_cookie => Filing::Dispute,
        _ => Filing::File,
    }
}

/// Whether a retransmission timer that has run out says that nobody answers this SYN. The first
/// one may be due to a moment's full queue; `expired_before` counts those before it.
#[inline(always)]
#[must_use]
pub fn syn_is_unanswered(state: u32, expired_before: u32) -> bool {
    state == SYN_SENT && expired_before == 1
}

/// Whether a socket that closes in this state was never connected.
#[inline(always)]
#[must_use]
pub fn never_connected(state_before: u32) -> bool {
    state_before == SYN_SENT
}

/// What `struct bpf_sock_ops` says about a socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawSocket {
    pub family: u32,
    pub local_ip4_be: u32,
    pub remote_ip4_be: u32,
    pub local_ip6_be: [u32; 4],
    pub remote_ip6_be: [u32; 4],
    /// In host order, unlike the next one.
    pub local_port: u32,
    /// As it stands there: a word in network order.
    pub remote_port_raw: u32,
}

/// Both ends of a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub local: Endpoint,
    pub remote: Endpoint,
}

/// `None` for a family that is neither IPv4 nor IPv6.
///
/// An IPv6 socket that speaks IPv4 shows it in its remote address only: when it connects, the
/// kernel has not copied the local address into the IPv6 field yet. So the IPv4 fields count.
#[inline(always)]
#[must_use]
pub fn ends(raw: &RawSocket) -> Option<Ends> {
    let remote_v6 = Address::v6(raw.remote_ip6_be);
    let (local, remote) = match raw.family {
        AF_INET => (
            Address::v4(raw.local_ip4_be),
            Address::v4(raw.remote_ip4_be),
        ),
        AF_INET6 if remote_v6.is_v4() => (
            Address::v4(raw.local_ip4_be),
            Address::v4(raw.remote_ip4_be),
        ),
        AF_INET6 => (Address::v6(raw.local_ip6_be), remote_v6),
        _ => return None,
    };
    Some(Ends {
        local: Endpoint {
            address: local,
            port: raw.local_port,
        },
        remote: Endpoint {
            address: remote,
            port: u32::from_be(raw.remote_port_raw) & 0xffff,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::end;

    fn v4(text: [u8; 4]) -> u32 {
        u32::from_ne_bytes(text)
    }

    #[test]
    fn a_tuple_of_two_namespaces_is_nobodys_for_as_long_as_either_may_be_under_way() {
        let claim = |netns_cookie, filed_ns, state| Claim {
            netns_cookie,
            filed_ns,
            state,
            ..Claim::default()
        };
        let one = claim(1, 10, claim::FILED);
        assert_eq!(filing(None, &one), Filing::File);
        let again = claim(1, 20, claim::FILED);
        assert_eq!(filing(Some(&one), &again), Filing::File, "the port again");
        let other = claim(2, 20, claim::FILED);
        assert_eq!(filing(Some(&one), &other), Filing::Dispute);
        let disputed = claim(2, 20, claim::DISPUTED);
        for netns_cookie in [1, 2, 3] {
            let soon = claim(netns_cookie, 19 + limits::DISPUTE_NS, claim::FILED);
            assert_eq!(filing(Some(&disputed), &soon), Filing::Dispute);
            let late = claim(netns_cookie, 20 + limits::DISPUTE_NS, claim::FILED);
            assert_eq!(filing(Some(&disputed), &late), Filing::File);
        }
    }

    #[test]
    fn a_syn_is_unanswered_once_its_second_timer_has_run_out() {
        let unanswered = (0..8).filter(|expired| syn_is_unanswered(SYN_SENT, *expired));
        assert!(unanswered.eq([1]), "told once a connection");
        assert!(!syn_is_unanswered(4, 1), "FIN_WAIT1");
    }

    #[test]
    fn an_ipv6_socket_that_speaks_ipv4_has_the_ends_of_an_ipv4_one() {
        let plain = RawSocket {
            family: AF_INET,
            local_ip4_be: v4([10, 0, 0, 1]),
            remote_ip4_be: v4([169, 254, 76, 9]),
            local_port: 40000,
            remote_port_raw: 15001_u32.to_be(),
            ..RawSocket::default()
        };
        let mapped = RawSocket {
            family: AF_INET6,
            remote_ip6_be: Address::v4(plain.remote_ip4_be).words_be,
            ..plain
        };
        assert_eq!(ends(&plain), ends(&mapped));
    }

    #[test]
    fn the_remote_port_is_turned_and_the_local_one_is_not() {
        let raw = RawSocket {
            family: AF_INET,
            local_ip4_be: v4([10, 0, 0, 1]),
            remote_ip4_be: v4([10, 0, 0, 2]),
            local_port: 40000,
            remote_port_raw: 443_u32.to_be(),
            ..RawSocket::default()
        };
        let ends = ends(&raw).expect("IPv4");
        assert_eq!(ends.local, end("10.0.0.1:40000"));
        assert_eq!(ends.remote, end("10.0.0.2:443"));
    }

    #[test]
    fn a_unix_socket_has_no_ends() {
        assert_eq!(
            ends(&RawSocket {
                family: 1,
                ..RawSocket::default()
            }),
            None
        );
    }
}
