//! TCP segments past every connect(): from a raw socket, with any source address.

use crate::protocol::MARKER;
use anyhow::{Context, Result};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddrV4;

const IPPROTO_RAW: i32 = 255;
const TCP: u8 = 6;
const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const SYN: u8 = 0x02;
const PSH_ACK: u8 = 0x18;

#[derive(Serialize)]
pub struct Forged {
    /// What became of the SYN, and of a segment with plaintext in it: `sent`, or the error.
    syn: String,
    data: String,
}

/// Sends a SYN, and then a segment with the marker, as if `source` had.
pub fn forge(source: SocketAddrV4, destination: SocketAddrV4) -> Result<Forged> {
    let raw = Type::from(nix::libc::SOCK_RAW);
    let socket = Socket::new(Domain::IPV4, raw, Some(Protocol::from(IPPROTO_RAW)))
        .context("a raw socket needs CAP_NET_RAW")?;
    let send = |flags, payload: &[u8]| {
        let packet = packet(source, destination, flags, payload);
        match socket.send_to(&packet, &destination.into()) {
            Ok(_) => "sent".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    Ok(Forged {
        syn: send(SYN, &[]),
        data: send(PSH_ACK, MARKER),
    })
}

/// An IPv4 packet without options (RFC 791, 3.1); the kernel fills in length, number and checksum.
fn packet(from: SocketAddrV4, to: SocketAddrV4, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut ip = [0; IP_HEADER];
    ip[0] = 0x45;
    ip[8] = 64;
    ip[9] = TCP;
    ip[12..16].copy_from_slice(&from.ip().octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    let mut tcp = [0; TCP_HEADER].to_vec();
    tcp[..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[7] = 1;
    tcp[12] = 0x50;
    tcp[13] = flags;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    tcp.extend(payload);
    let sum = checksum(&[&ip[12..20], &[0, TCP], &length(&tcp), &tcp]);
    tcp[16..18].copy_from_slice(&sum);
    [&ip[..], &tcp].concat()
}

fn length(segment: &[u8]) -> [u8; 2] {
    u16::try_from(segment.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes()
}

/// The Internet checksum (RFC 1071) over parts of which only the last may be odd.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let word = |word: &[u8]| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_over_a_packet_with_its_checksum_is_zero() {
        let at = |text: &str| text.parse().expect("literal");
        let packet = packet(at("10.0.0.1:1"), at("10.0.0.2:80"), PSH_ACK, b"odd");
        let tcp = &packet[IP_HEADER..];
        let sum = checksum(&[&packet[12..20], &[0, TCP], &length(tcp), tcp]);
        assert_eq!(sum, [0, 0]);
    }
}
