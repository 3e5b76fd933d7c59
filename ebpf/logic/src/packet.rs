//! What the guard reads of a packet: the two ends of a TCP segment and its flags.

use kedge_abi::{Address, Endpoint, limits};

/// The bytes of a packet, from its IP header on.
pub trait Packet {
    /// `None`: the packet is shorter.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

/// A TCP segment, as far as the guard needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub source: Endpoint,
    pub destination: Endpoint,
    /// SYN without ACK: somebody opens a connection.
    pub opens: bool,
}

/// What a packet is to the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Tcp(Segment),
    /// Another protocol.
    Other,
    /// It cannot be told what it is: cut short, a fragment, too many headers. Sockets neither
    /// send nor are given such packets, the kernel cuts them later and joins them before; so
    /// nothing honest is lost when they are dropped.
    Unclear,
}

const TCP: u8 = 6;

/// Reads the IP header, walks IPv6 extension headers, and reads the TCP header.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P) -> Parsed {
    let Some([first]) = packet.load::<1>(0) else {
        return Parsed::Unclear;
    };
    match first >> 4 {
        4 => parse_v4(packet),
        6 => parse_v6(packet),
        _ => Parsed::Unclear,
    }
}

#[inline(always)]
fn parse_v4<P: Packet>(packet: &P) -> Parsed {
    let Some(header) = packet.load::<20>(0) else {
        return Parsed::Unclear;
    };
    if header[9] != TCP {
        return Parsed::Other;
    }
    let length = u32::from(header[0] & 0x0f) * 4;
    // More fragments, or an offset (RFC 791, 3.1).
    let is_fragment = header[6] & 0x3f != 0 || header[7] != 0;
    if length < 20 || is_fragment {
        return Parsed::Unclear;
    }
    let source = Address::v4(word(&header, 12));
    let destination = Address::v4(word(&header, 16));
    segment(packet, length, source, destination)
}

#[inline(always)]
fn parse_v6<P: Packet>(packet: &P) -> Parsed {
    let Some(header) = packet.load::<40>(0) else {
        return Parsed::Unclear;
    };
    match tcp_offset(packet, header[6]) {
        Payload::Tcp(offset) => {
            let source = Address::v6(words(&header, 8));
            let destination = Address::v6(words(&header, 24));
            segment(packet, offset, source, destination)
        }
        Payload::Other => Parsed::Other,
        Payload::Unclear => Parsed::Unclear,
    }
}

enum Payload {
    Tcp(u32),
    Other,
    Unclear,
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// Walks the extension headers (RFC 8200, 4; RFC 4302, 2.2 for the other unit of length).
#[inline(always)]
fn tcp_offset<P: Packet>(packet: &P, first: u8) -> Payload {
    let mut kind = first;
    let mut offset = 40;
    let mut walked = 0;
    while walked <= limits::EXTENSION_HEADERS {
        let unit = match kind {
            TCP => return Payload::Tcp(offset),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => 8,
            AUTHENTICATION => 4,
            FRAGMENT => return Payload::Unclear,
            _ => return Payload::Other,
        };
        let Some([next, length]) = packet.load::<2>(offset) else {
            return Payload::Unclear;
        };
        offset += 8 + u32::from(length) * unit;
        kind = next;
        walked += 1;
    }
    Payload::Unclear
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[inline(always)]
fn segment<P: Packet>(packet: &P, offset: u32, source: Address, destination: Address) -> Parsed {
    let Some(header) = packet.load::<14>(offset) else {
        return Parsed::Unclear;
    };
    Parsed::Tcp(Segment {
        source: Endpoint::new(source, u16::from_be_bytes([header[0], header[1]])),
        destination: Endpoint::new(destination, u16::from_be_bytes([header[2], header[3]])),
        opens: header[13] & (SYN | ACK) == SYN,
    })
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
fn words<const N: usize>(bytes: &[u8; N], at: usize) -> [u32; 4] {
    [
        word(bytes, at),
        word(bytes, at + 4),
        word(bytes, at + 8),
        word(bytes, at + 12),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{end, tcp4, tcp6};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn expected(source: &str, destination: &str, opens: bool) -> Parsed {
        Parsed::Tcp(Segment {
            source: end(source),
            destination: end(destination),
            opens,
        })
    }

    #[test]
    fn tcp_over_ipv4_is_read_with_and_without_options() {
        for options in [0, 4, 40] {
            let packet = tcp4("10.0.0.1:40000", "10.0.0.2:80", SYN, options);
            assert_eq!(
                parse(&packet),
                expected("10.0.0.1:40000", "10.0.0.2:80", true)
            );
        }
    }

    #[test]
    fn only_a_syn_without_ack_opens() {
        for (flags, opens) in [
            (SYN, true),
            (SYN | ACK, false),
            (ACK, false),
            (SYN | 0x80, true),
        ] {
            let packet = tcp4("10.0.0.1:1", "10.0.0.2:2", flags, 0);
            assert_eq!(parse(&packet), expected("10.0.0.1:1", "10.0.0.2:2", opens));
        }
    }

    #[test]
    fn extension_headers_of_ipv6_are_walked_to_the_bound_and_no_further() {
        let (from, to) = ("[2001:db8::1]:40000", "[2001:db8::2]:80");
        let chain = |n| std::vec![DESTINATION_OPTIONS; n];
        for n in 0..=limits::EXTENSION_HEADERS as usize {
            assert_eq!(
                parse(&tcp6(from, to, ACK, &chain(n))),
                expected(from, to, false)
            );
        }
        let n = limits::EXTENSION_HEADERS as usize + 1;
        assert_eq!(parse(&tcp6(from, to, ACK, &chain(n))), Parsed::Unclear);
    }

    #[test]
    fn every_fragment_is_unclear_the_first_one_too() {
        for (high, low) in [(0x20, 0), (0x00, 1), (0x20, 185), (0x1f, 0xff)] {
            let mut packet = tcp4("10.0.0.1:1", "10.0.0.2:2", SYN, 0);
            (packet[6], packet[7]) = (high, low);
            assert_eq!(parse(&packet), Parsed::Unclear);
        }
        let packet = tcp6("[2001:db8::1]:1", "[2001:db8::2]:2", SYN, &[FRAGMENT]);
        assert_eq!(parse(&packet), Parsed::Unclear);
    }

    #[test]
    fn dont_fragment_is_no_fragment() {
        let mut packet = tcp4("10.0.0.1:1", "10.0.0.2:2", SYN, 0);
        packet[6] = 0x40;
        assert!(matches!(parse(&packet), Parsed::Tcp(_)));
    }

    #[test]
    fn another_protocol_is_other_and_a_cut_packet_is_unclear() {
        let mut udp = tcp4("10.0.0.1:1", "10.0.0.2:2", SYN, 0);
        udp[9] = 17;
        assert_eq!(parse(&udp), Parsed::Other);
        let whole = tcp4("10.0.0.1:1", "10.0.0.2:2", SYN, 0);
        for length in 0..whole.len() - 6 {
            assert_eq!(
                parse(&whole[..length].to_vec()),
                Parsed::Unclear,
                "{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_loop(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_claims_to_be_tcp_is_never_called_other(
            payload in proptest::collection::vec(any::<u8>(), 0..64), ihl in 0_u8..16,
        ) {
            let mut packet = tcp4("10.0.0.1:1", "10.0.0.2:2", SYN, 0);
            packet[0] = 0x40 | ihl;
            packet.extend(payload);
            prop_assert_ne!(parse(&packet), Parsed::Other);
        }
    }
}
