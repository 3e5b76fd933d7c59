//! Captures made by hand: what the oracle accepts, and one control for everything that it must
//! not. Each control differs from an accepted capture in one thing only.

use super::*;
use crate::wire::capture::between_nodes;
use etherparse::PacketBuilder;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use std::time::Duration;
use tempfile::NamedTempFile;

const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [192, 0, 2, 2];
const PEER: u16 = 15_443;
const ISN: u32 = u32::MAX - 50; // sequence numbers wrap in the middle of every test

/// One side of a connection being written down.
#[derive(Clone, Copy)]
struct Side {
    from: ([u8; 4], u16),
    to: ([u8; 4], u16),
}

const DIALLER: Side = Side {
    from: (A, 40_000),
    to: (B, PEER),
};
const ACCEPTOR: Side = Side {
    from: (B, PEER),
    to: (A, 40_000),
};

#[derive(Default)]
struct Wire {
    frames: Vec<Vec<u8>>,
}

impl Wire {
    /// SYN both ways.
    fn open() -> Self {
        let mut wire = Self::default();
        wire.syn(DIALLER, &[]);
        wire.frames
            .push(frame(ACCEPTOR, ISN, |tcp| tcp.syn().ack(1), &[]));
        wire
    }

    fn syn(&mut self, side: Side, payload: &[u8]) {
        self.frames.push(frame(side, ISN, |tcp| tcp.syn(), payload));
    }

    fn data(&mut self, side: Side, offset: usize, payload: &[u8]) -> &mut Self {
        let sequence = ISN
            .wrapping_add(1)
            .wrapping_add(u32::try_from(offset).expect("small"));
        self.frames
            .push(frame(side, sequence, |tcp| tcp.ack(1), payload));
        self
    }

    fn fin(&mut self, side: Side, offset: usize) -> &mut Self {
        let sequence = ISN
            .wrapping_add(1)
            .wrapping_add(u32::try_from(offset).expect("small"));
        self.frames
            .push(frame(side, sequence, |tcp| tcp.fin().ack(1), &[]));
        self
    }

    fn judged(&self) -> Report {
        self.judged_with(0)
    }

    fn judged_with(&self, dropped: u64) -> Report {
        let file = NamedTempFile::new().expect("a temporary file");
        let mut writer = PcapWriter::new(file.reopen().expect("reopen")).expect("header");
        for frame in &self.frames {
            let length = u32::try_from(frame.len()).expect("small");
            let packet = PcapPacket::new(Duration::ZERO, length, frame);
            writer.write_packet(&packet).expect("write");
        }
        drop(writer);
        judge(file.path(), dropped, &between_nodes()).expect("a readable capture")
    }

    fn problem(&self) -> Problem {
        let findings = self.judged().findings;
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].problem.clone()
    }
}

type Tcp = etherparse::PacketBuilderStep<etherparse::TcpHeader>;

fn frame(side: Side, sequence: u32, flags: impl Fn(Tcp) -> Tcp, payload: &[u8]) -> Vec<u8> {
    let tcp = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(side.from.0, side.to.0, 64)
        .tcp(side.from.1, side.to.1, sequence, 1000);
    let mut bytes = Vec::new();
    flags(tcp)
        .write(&mut bytes, payload)
        .expect("into a vector");
    bytes
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("small").to_be_bytes();
    [&[kind, 3, 3], &length[..], body].concat()
}

fn sealed() -> Vec<u8> {
    record(23, &[0xa5; 40])
}

/// Opening, header and two records, as a dialling daemon sends them.
fn carrier() -> Vec<u8> {
    let link = [7; 16];
    let opening = [b"O\x01\x00".as_slice(), &link, &[0; 8], &[9; 16]].concat();
    let header = [b"H\x01\x13\x02\x00".as_slice(), &link, &[0; 4], &[0; 8]].concat();
    [opening, header, sealed(), sealed()].concat()
}

fn carrier_wire(bytes: &[u8]) -> Wire {
    let mut wire = Wire::open();
    wire.data(DIALLER, 0, bytes).fin(DIALLER, bytes.len());
    wire.data(ACCEPTOR, 0, &sealed())
        .fin(ACCEPTOR, sealed().len());
    wire
}

fn vector(width: usize, body: &[u8]) -> Vec<u8> {
    [&body.len().to_be_bytes()[8 - width..], body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &vector(2, body)[..]].concat()
}

fn client_hello() -> Vec<u8> {
    let groups = extension(10, &vector(2, &[0x11, 0xec]));
    let share = [&[0x11, 0xec], &vector(2, &[1; 1216])[..]].concat();
    let shares = extension(51, &vector(2, &share));
    let body = [
        &[3; 34][..],
        &vector(1, &[]),
        &vector(2, &[0x13, 0x02]),
        &vector(1, &[0]),
        &vector(2, &[groups, shares].concat()),
    ]
    .concat();
    record(22, &[&[1], &vector(3, &body)[..]].concat())
}

fn server_hello(more: &[u8]) -> Vec<u8> {
    let share = extension(51, &[&[0x11, 0xec], &vector(2, &[2; 1120])[..]].concat());
    let extensions = vector(2, &[&share, more].concat());
    let body = [&[3; 34][..], &vector(1, &[]), &[0x13, 0x02, 0], &extensions].concat();
    record(22, &[&[2], &vector(3, &body)[..]].concat())
}

fn link_wire(server: &[u8]) -> Wire {
    let mut wire = Wire::open();
    wire.data(
        DIALLER,
        0,
        &[client_hello(), record(20, &[1]), sealed()].concat(),
    );
    wire.data(ACCEPTOR, 0, &[server, &sealed()].concat());
    wire
}

#[test]
fn a_carrier_is_accepted_and_counted() {
    let report = carrier_wire(&carrier()).judged();
    report.is_clean().expect("nothing to object to");
    assert_eq!(
        (report.flows, report.records, report.links.len()),
        (1, 3, 0)
    );
}

/// The first bytes of both sides of a carrier on which a direction goes on.
fn continuation(direction: u8) -> [Vec<u8>; 2] {
    let flow = [b"C\x01\x00".as_slice(), &[7; 16], &[0; 8]].concat();
    let point = [&[direction][..], &[0; 4], &[0; 8]].concat();
    [[flow, point, vec![9; 16]].concat(), vec![8; 16]]
}

fn continued_wire([dialled, accepted]: &[Vec<u8>; 2]) -> Wire {
    let mut wire = Wire::open();
    wire.data(DIALLER, 0, dialled).fin(DIALLER, dialled.len());
    wire.data(ACCEPTOR, 0, accepted)
        .fin(ACCEPTOR, accepted.len());
    wire
}

#[test]
fn a_flow_that_goes_on_is_accepted_and_counted() {
    for direction in [0, 1] {
        let mut both = continuation(direction);
        both[usize::from(direction)].extend([sealed(), sealed()].concat());
        let report = continued_wire(&both).judged();
        report.is_clean().expect("nothing to object to");
        let counts = (report.flows, report.continuations, report.records);
        assert_eq!(counts, (0, 1, 2));
    }
}

#[test]
fn what_is_no_continuation_or_speaks_out_of_turn_is_caught() {
    for direction in [0, 1] {
        for place in [1, 2, 27] {
            let mut both = continuation(direction);
            both[0][place] = 2;
            let problem = continued_wire(&both).problem();
            assert_eq!(problem, Problem::NotA("continuation"));
        }
        let mut both = continuation(direction);
        both[usize::from(1 - direction)].extend(sealed());
        let problem = continued_wire(&both).problem();
        assert_eq!(problem, Problem::NotA("silent direction"));
        let mut both = continuation(direction);
        both[usize::from(direction)].extend(b"GET / HTTP/1.0");
        let problem = continued_wire(&both).problem();
        assert_eq!(problem, Problem::NotA("TLS record"));
        let mut both = continuation(direction);
        both[1].pop();
        let problem = continued_wire(&both).problem();
        assert_eq!(problem, Problem::EndsInside("confirmation"));
    }
}

#[test]
fn a_flow_that_speaks_before_the_answer_is_told_from_one_that_waits() {
    let report = carrier_wire(&carrier()).judged();
    assert_eq!(report.flows_without_waiting, 1);
    let (carrier, mut wire) = (carrier(), Wire::open());
    let record0_end = carrier.len() - sealed().len();
    wire.data(DIALLER, 0, &carrier[..record0_end]);
    wire.data(ACCEPTOR, 0, &sealed());
    wire.data(DIALLER, record0_end, &carrier[record0_end..]);
    let report = wire.judged();
    report.is_clean().expect("nothing to object to");
    assert_eq!((report.flows, report.flows_without_waiting), (1, 0));
}

#[test]
fn a_link_tells_its_group_and_that_its_handshake_was_full() {
    let report = link_wire(&server_hello(&[])).judged();
    report.is_clean().expect("nothing to object to");
    assert_eq!(report.full_handshakes(), 1);
    assert_eq!(report.links[0].offered_groups, [0x11ec]);
    assert_eq!(
        report.links[0].group.map(group_name),
        Some("X25519MLKEM768".to_owned())
    );
}

#[test]
fn a_resumed_handshake_is_not_a_full_one() {
    let report = link_wire(&server_hello(&extension(41, &[0, 0]))).judged();
    assert_eq!((report.links.len(), report.full_handshakes()), (1, 0));
}

#[test]
fn order_and_repetition_do_not_matter() {
    let bytes = carrier();
    let mut wire = Wire::open();
    wire.data(DIALLER, 100, &bytes[100..]);
    wire.data(DIALLER, 0, &bytes[..60])
        .data(DIALLER, 30, &bytes[30..110]);
    wire.data(DIALLER, 0, &bytes).fin(DIALLER, bytes.len());
    wire.judged().is_clean().expect("the same bytes");
}

#[test]
fn a_capture_may_end_inside_a_record_of_an_open_stream() {
    let bytes = carrier();
    let mut wire = Wire::open();
    wire.data(DIALLER, 0, &bytes[..bytes.len() - 3]);
    wire.judged().is_clean().expect("the rest is still to come");
}

#[test]
fn one_leaked_byte_is_caught_wherever_it_is() {
    let good = carrier();
    for place in [0, 43, 43 + 33, good.len() - sealed().len(), good.len()] {
        let mut bytes = good.clone();
        bytes.insert(place, b'G');
        let problem = carrier_wire(&bytes).problem();
        assert!(
            matches!(problem, Problem::NotA(_) | Problem::EndsInside(_)),
            "a byte at {place}: {problem}"
        );
    }
}

#[test]
fn one_leaked_byte_of_the_accepting_side_is_caught() {
    let mut wire = Wire::open();
    wire.data(DIALLER, 0, &carrier());
    wire.data(ACCEPTOR, 0, &[sealed(), b"G".to_vec()].concat());
    wire.fin(ACCEPTOR, sealed().len() + 1);
    assert_eq!(wire.problem(), Problem::EndsInside("TLS record"));
}

#[test]
fn plain_http_is_caught() {
    let mut wire = Wire::open();
    wire.data(DIALLER, 0, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(wire.problem(), Problem::NotA("link or carrier"));
}

#[test]
fn a_marker_inside_of_what_looks_like_a_record_is_caught() {
    let body = [b"KEDGE-LAB-PLAINTEXT-MARKER".as_slice(), &[0; 20]].concat();
    let bytes = [carrier(), record(23, &body)].concat();
    assert_eq!(carrier_wire(&bytes).problem(), Problem::Plaintext);
}

#[test]
fn a_gap_is_caught() {
    let bytes = carrier();
    let mut wire = Wire::open();
    wire.data(DIALLER, 0, &bytes[..50])
        .data(DIALLER, 51, &bytes[51..]);
    assert_eq!(wire.problem(), Problem::Gap);
}

#[test]
fn a_retransmission_with_other_bytes_is_caught() {
    let mut wire = Wire::open();
    wire.data(DIALLER, 0, &carrier())
        .data(DIALLER, 20, b"other");
    assert_eq!(wire.problem(), Problem::Disagreement);
}

#[test]
fn data_in_a_syn_is_caught() {
    let mut wire = Wire::default();
    wire.syn(DIALLER, b"early");
    assert_eq!(wire.problem(), Problem::DataInSyn);
}

#[test]
fn a_stream_without_its_beginning_is_caught() {
    let mut wire = Wire::default();
    wire.data(DIALLER, 0, &carrier());
    assert_eq!(wire.problem(), Problem::BeginningMissing);
}

#[test]
fn another_port_or_another_address_is_caught() {
    let strangers = [
        Side {
            to: (B, 80),
            ..DIALLER
        },
        Side {
            from: ([10, 244, 1, 10], 40_000),
            ..DIALLER
        },
        Side {
            to: ([10, 244, 2, 10], PEER),
            ..DIALLER
        },
    ];
    for side in strangers {
        let mut wire = Wire::default();
        wire.syn(side, &[]);
        assert_eq!(wire.problem(), Problem::UnexpectedTuple);
    }
}

#[test]
fn another_protocol_is_caught() {
    let mut datagram = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(A, B, 64)
        .udp(PEER, PEER)
        .write(&mut datagram, b"hello")
        .expect("into a vector");
    let problem = Wire {
        frames: vec![datagram],
    }
    .problem();
    assert!(matches!(problem, Problem::UnexpectedPacket(_)), "{problem}");
}

#[test]
fn one_packet_lost_by_the_capture_fails_it() {
    let report = carrier_wire(&carrier()).judged_with(1);
    assert!(report.is_clean().is_err());
    assert_eq!(report.findings[0].problem, Problem::PacketsDropped(1));
}

#[test]
fn a_new_stream_on_the_same_ports_is_another_stream() {
    let mut wire = carrier_wire(&carrier());
    wire.frames.push(frame(DIALLER, 5, |tcp| tcp.syn(), &[]));
    wire.frames
        .push(frame(DIALLER, 6, |tcp| tcp.ack(1), &carrier()));
    let report = wire.judged();
    report.is_clean().expect("nothing to object to");
    assert_eq!(report.flows, 2);
}
