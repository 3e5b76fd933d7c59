//! Addresses in the one form in which they are compared: 16 bytes, IPv4 mapped (RFC 4291, 2.5.5.2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address of either family, in network order, as four words.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Address {
    /// The 16 bytes, as the kernel holds them: four words in network order.
    pub words_be: [u32; 4],
}

const _: () = assert!(size_of::<Address>() == 16);

impl Address {
    #[inline(always)]
    #[must_use]
    pub const fn v6(words_be: [u32; 4]) -> Self {
        Self { words_be }
    }

    /// `::ffff:a.b.c.d` for the IPv4 address whose word in network order is `word_be`.
    #[inline(always)]
    #[must_use]
    pub const fn v4(word_be: u32) -> Self {
        Self {
            words_be: [0, 0, 0xffff_u32.to_be(), word_be],
        }
    }

    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words_be[0] == 0 && self.words_be[1] == 0 && self.words_be[2] == 0xffff_u32.to_be()
    }

    /// The IPv4 word in network order; meaningful only where [`Address::is_v4`].
    #[inline(always)]
    #[must_use]
    pub const fn v4_word_be(&self) -> u32 {
        self.words_be[3]
    }

    /// 127.0.0.0/8 or ::1.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            u32::from_be(self.words_be[3]) >> 24 == 127
        } else {
            self.words_be[0] == 0
                && self.words_be[1] == 0
                && self.words_be[2] == 0
                && self.words_be[3] == 1_u32.to_be()
        }
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(ip: core::net::IpAddr) -> Self {
        let octets = match ip {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        };
        zerocopy::transmute!(octets)
    }
}

impl From<Address> for core::net::IpAddr {
    /// The canonical form: a mapped address is IPv4.
    fn from(address: Address) -> Self {
        let octets: [u8; 16] = zerocopy::transmute!(address);
        core::net::Ipv6Addr::from(octets).to_canonical()
    }
}

/// An address and a port.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Endpoint {
    pub address: Address,
    /// In host order; the upper half is zero.
    pub port: u32,
}

const _: () = assert!(size_of::<Endpoint>() == 20);

impl Endpoint {
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: u16) -> Self {
        Self {
            address,
            port: port as u32,
        }
    }
}

impl From<core::net::SocketAddr> for Endpoint {
    fn from(socket: core::net::SocketAddr) -> Self {
        Self::new(socket.ip().into(), socket.port())
    }
}

impl From<Endpoint> for core::net::SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the upper half is zero")]
        Self::new(endpoint.address.into(), endpoint.port as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{IpAddr, SocketAddr};

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().expect("literal").into()
    }

    #[test]
    fn a_v4_address_and_its_mapped_form_are_the_same_bytes() {
        assert_eq!(address("10.1.2.3"), address("::ffff:10.1.2.3"));
        assert_eq!(
            Address::v4(u32::from_ne_bytes([10, 1, 2, 3])),
            address("10.1.2.3")
        );
    }

    #[test]
    fn endpoints_come_back_in_canonical_form() {
        for text in ["10.1.2.3:80", "[2001:db8::1]:65535", "[::1]:0"] {
            let socket: SocketAddr = text.parse().expect("literal");
            assert_eq!(SocketAddr::from(Endpoint::from(socket)), socket);
        }
    }

    #[test]
    fn loopback_is_told_in_both_families_and_mapped() {
        for text in ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"] {
            assert!(address(text).is_loopback(), "{text}");
        }
        for text in ["128.0.0.1", "::2", "::", "::ffff:10.0.0.1"] {
            assert!(!address(text).is_loopback(), "{text}");
        }
    }
}
