//! The verdict over one capture.

use super::finding::{Finding, Position, Problem};
use super::hello::{self, Hello, Sender};
use super::packets::{self, Packet, Segment};
use super::records::{self, Counts, Kind};
use super::streams::{Half, Stream, Streams};
use anyhow::{Result, ensure};
use memchr::memmem;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// What is due on the wire.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Nobody else may talk here.
    pub nodes: Vec<IpAddr>,
    pub peer_port: u16,
    /// Bytes that an application sends: none of them may be seen, wherever it stands.
    pub markers: Vec<Vec<u8>>,
}

/// One control connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkSeen {
    pub dialler: SocketAddr,
    pub acceptor: SocketAddr,
    pub offered_groups: Vec<u16>,
    /// The group of the key exchange; `None`: there was no answer.
    pub group: Option<u16>,
    /// Certificates and a key exchange, no resumption.
    pub full_handshake: bool,
}

/// What was there, and what should not have been.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub packets: u64,
    pub links: Vec<LinkSeen>,
    /// Carriers that carried a flow.
    pub flows: u64,
    /// Flows of which bytes of the application had left before anything came back.
    pub flows_without_waiting: u64,
    /// Carriers on which a flow went on.
    pub continuations: u64,
    /// Carriers that were opened and not used.
    pub unused_carriers: u64,
    pub records: u64,
    pub sealed_bytes: u64,
    /// Packets that two nodes exchange anyway, by kind.
    pub neighbourhood: BTreeMap<&'static str, u64>,
    pub findings: Vec<Finding>,
}

/// Parses every byte of a finished capture.
///
/// # Errors
/// When the file cannot be read; what is wrong with the traffic is in the report.
pub fn judge(path: &Path, dropped: u64, expected: &Expected) -> Result<Report> {
    let mut report = Report::default();
    if dropped > 0 {
        report.findings.push(Finding {
            problem: Problem::PacketsDropped(dropped),
            at: None,
        });
    }
    let mut streams = Streams::default();
    packets::read(path, |packet| {
        report.packets += 1;
        match packet {
            Packet::Tcp(segment) if expected.is_due(&segment) => streams.take(&segment),
            Packet::Tcp(segment) => report.findings.push(unexpected(&segment)),
            Packet::Neighbourhood(kind) => *report.neighbourhood.entry(kind).or_default() += 1,
            Packet::Other(what) => {
                let problem = Problem::UnexpectedPacket(what);
                report.findings.push(Finding { problem, at: None });
            }
        }
    })?;
    streams.finish();
    report.findings.append(&mut streams.findings);
    for stream in &streams.all {
        report.take(stream, expected);
    }
    Ok(report)
}

impl Expected {
    fn is_due(&self, segment: &Segment<'_>) -> bool {
        let ports = [segment.from.port(), segment.to.port()];
        ports.contains(&self.peer_port)
            && self.nodes.contains(&segment.from.ip())
            && self.nodes.contains(&segment.to.ip())
    }
}

fn unexpected(segment: &Segment<'_>) -> Finding {
    let (from, to) = (segment.from, segment.to);
    let at = Position {
        from,
        to,
        offset: 0,
        bytes: segment.payload.to_vec(),
    };
    Finding {
        problem: Problem::UnexpectedTuple,
        at: Some(at),
    }
}

impl Report {
    fn take(&mut self, stream: &Stream, expected: &Expected) {
        if let Err(finding) = self.take_parsed(stream) {
            self.findings.push(finding);
        }
        for half in [&stream.dialled, &stream.accepted] {
            self.findings.extend(plaintext_in(half, &expected.markers));
        }
    }

    fn take_parsed(&mut self, stream: &Stream) -> Result<(), Finding> {
        match records::kind(&stream.dialled)? {
            Kind::Silent => {
                self.add(records::check_sealed(&stream.accepted, 0)?);
                self.unused_carriers += 1;
            }
            Kind::Link => {
                self.add(records::check_link(&stream.dialled)?);
                self.add(records::check_link(&stream.accepted)?);
                self.links.push(link_seen(stream));
            }
            Kind::Continuation => {
                let counts = records::check_continuation(&stream.dialled, &stream.accepted)?;
                self.add(counts);
                self.continuations += 1;
            }
            Kind::Carrier => {
                let (carried, counts) = records::check_carrier(&stream.dialled)?;
                self.add(counts);
                self.add(records::check_sealed(&stream.accepted, 0)?);
                *(if carried {
                    &mut self.flows
                } else {
                    &mut self.unused_carriers
                }) += 1;
                let said = stream.said_before_answer.unwrap_or(0);
                let more_than_record0 = records::end_of_record0(&stream.dialled) < said;
                self.flows_without_waiting += u64::from(carried && more_than_record0);
            }
        }
        Ok(())
    }

    fn add(&mut self, counts: Counts) {
        self.records += counts.records;
        self.sealed_bytes += counts.sealed_bytes;
    }

    #[must_use]
    pub fn full_handshakes(&self) -> usize {
        self.links.iter().filter(|link| link.full_handshake).count()
    }

    /// # Errors
    /// When there was anything to object to; the message lists the first objections.
    pub fn is_clean(&self) -> Result<()> {
        let shown: Vec<_> = self
            .findings
            .iter()
            .take(5)
            .map(|f| format!("  {f}"))
            .collect();
        ensure!(
            self.findings.is_empty(),
            "the wire oracle objects to {} things:\n{}",
            self.findings.len(),
            shown.join("\n")
        );
        Ok(())
    }
}

fn link_seen(stream: &Stream) -> LinkSeen {
    let client = hello::parse(&stream.dialled.bytes, Sender::Client).unwrap_or_default();
    let server = hello::parse(&stream.accepted.bytes, Sender::Server);
    let is_full = |server: &Hello| !server.shares.is_empty() && !server.pre_shared_key;
    LinkSeen {
        dialler: stream.dialled.from,
        acceptor: stream.dialled.to,
        offered_groups: client.groups,
        group: server
            .as_ref()
            .and_then(|server| server.shares.first().copied()),
        full_handshake: server.as_ref().is_some_and(is_full),
    }
}

fn plaintext_in(half: &Half, markers: &[Vec<u8>]) -> Option<Finding> {
    let found = |marker: &Vec<u8>| memmem::find(&half.bytes, marker);
    let offset = markers.iter().find_map(found)?;
    Some(half.finding(Problem::Plaintext, offset))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let neighbourhood: u64 = self.neighbourhood.values().sum();
        write!(
            f,
            "{} packets ({neighbourhood} ARP and neighbour discovery): {} links with {} full \
             handshakes, {} flows ({} times continued), {} records with {} sealed bytes, {} objections",
            self.packets,
            self.links.len(),
            self.full_handshakes(),
            self.flows,
            self.continuations,
            self.records,
            self.sealed_bytes,
            self.findings.len()
        )
    }
}
