//! Addresses by the role that they play, so that one cannot be passed for another.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Turns `::ffff:a.b.c.d` into `a.b.c.d`; every comparison of addresses happens in this form.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The 16-byte form in which both families stand on the wire and in BPF maps (RFC 4291, 2.5.5.2).
#[must_use]
pub fn v6_mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Whether a daemon may ever deliver to this address, whatever a directory says: never to
/// loopback, link-local (which holds the cloud metadata services), multicast, broadcast or
/// unspecified addresses. A daemon is no relay.
#[must_use]
pub fn is_deliverable(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
                || v4 == Ipv4Addr::new(100, 100, 100, 200))
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))
        }
    }
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Takes the address in its canonical form (a v4-mapped one becomes IPv4).
            #[must_use]
            pub fn new(address: SocketAddr) -> Self {
                Self(canonical(address))
            }

            #[must_use]
            pub fn socket_addr(self) -> SocketAddr {
                self.0
            }

            #[must_use]
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            #[must_use]
            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

role! {
    /// What the application asked for in connect().
    OriginalDst
}
role! {
    /// The application's own address and port, as its pod sees them.
    SourceAddr
}
role! {
    /// Where a peer daemon listens.
    NodeAddr
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v4_mapped_destination_equals_its_v4_form() {
        let mapped = OriginalDst::new("[::ffff:10.1.2.3]:80".parse().expect("literal"));
        assert_eq!(
            mapped,
            OriginalDst::new("10.1.2.3:80".parse().expect("literal"))
        );
    }

    #[test]
    fn places_that_no_daemon_delivers_to() {
        for ip in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "224.0.0.1",
            "ff02::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "255.255.255.255",
        ] {
            assert!(!is_deliverable(ip.parse().expect("literal")), "{ip}");
        }
        for ip in ["10.1.2.3", "192.168.1.1", "fd00::3", "2001:db8::1"] {
            assert!(is_deliverable(ip.parse().expect("literal")), "{ip}");
        }
    }
}
