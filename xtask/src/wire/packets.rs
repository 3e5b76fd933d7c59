//! From a capture file to TCP segments; everything else is named.

use anyhow::{Context, Result, ensure};
use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use pcap_file::pcap::PcapReader;
use std::fs::File;
use std::io::BufReader;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

pub struct Segment<'a> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub sequence: u32,
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub reset: bool,
    pub payload: &'a [u8],
}

pub enum Packet<'a> {
    Tcp(Segment<'a>),
    /// How neighbours find each other; carries nothing of an application.
    Neighbourhood(&'static str),
    Other(String),
}

/// Calls `each` with every packet of a capture file.
///
/// # Errors
/// When the file is not a complete capture of complete packets.
pub fn read(path: &Path, mut each: impl FnMut(Packet<'_>)) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut reader = PcapReader::new(BufReader::new(file))
        .with_context(|| format!("{} is no capture file", path.display()))?;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.with_context(|| format!("read {}", path.display()))?;
        ensure!(
            packet.data.len() == packet.orig_len as usize,
            "{} holds {} of a packet's {} bytes",
            path.display(),
            packet.data.len(),
            packet.orig_len
        );
        each(classify(&packet.data));
    }
    Ok(())
}

fn classify(frame: &[u8]) -> Packet<'_> {
    let packet = match SlicedPacket::from_ethernet(frame) {
        Ok(packet) => packet,
        Err(error) => return Packet::Other(format!("{error}")),
    };
    let Some((from, to)) = addresses(&packet) else {
        return match packet.net {
            Some(NetSlice::Arp(_)) => Packet::Neighbourhood("ARP"),
            _ => Packet::Other("an Ethernet frame of an unknown kind".to_owned()),
        };
    };
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Packet::Tcp(segment(from, to, tcp)),
        Some(TransportSlice::Icmpv6(icmp)) => match neighbourhood(icmp.type_u8()) {
            Some(kind) => Packet::Neighbourhood(kind),
            None => Packet::Other(format!("ICMPv6 type {}, {from} -> {to}", icmp.type_u8())),
        },
        Some(TransportSlice::Icmpv4(icmp)) => {
            Packet::Other(format!("ICMP type {}, {from} -> {to}", icmp.type_u8()))
        }
        Some(TransportSlice::Udp(udp)) => Packet::Other(format!(
            "UDP to port {}, {from} -> {to}",
            udp.destination_port()
        )),
        None => Packet::Other(format!("an IP protocol that is not TCP, {from} -> {to}")),
    }
}

/// The only ICMPv6 that two quiet nodes exchange: neighbour discovery (RFC 4861) and multicast
/// listener reports (RFC 3810).
fn neighbourhood(icmpv6_type: u8) -> Option<&'static str> {
    match icmpv6_type {
        133 => Some("router solicitation"),
        135 => Some("neighbour solicitation"),
        136 => Some("neighbour advertisement"),
        143 => Some("multicast listener report"),
        _ => None,
    }
}

fn addresses(packet: &SlicedPacket<'_>) -> Option<(IpAddr, IpAddr)> {
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        _ => None,
    }
}

fn segment<'a>(from: IpAddr, to: IpAddr, tcp: &TcpSlice<'a>) -> Segment<'a> {
    Segment {
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        sequence: tcp.sequence_number(),
        syn: tcp.syn(),
        ack: tcp.ack(),
        fin: tcp.fin(),
        reset: tcp.rst(),
        payload: tcp.payload(),
    }
}
