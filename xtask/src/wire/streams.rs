//! TCP reassembly: every byte of both directions at its place, once, whatever the order and
//! however often it was sent; bytes sent twice must be the same bytes.

use super::finding::{Finding, Position, Problem};
use super::packets::Segment;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

/// Bytes shown with a finding.
const SHOWN_BYTES: usize = 32;

#[derive(Default)]
pub struct Streams {
    /// In the order in which they were opened.
    pub all: Vec<Stream>,
    pub findings: Vec<Finding>,
    /// The newest stream between (dialler, acceptor).
    newest: HashMap<(SocketAddr, SocketAddr), usize>,
}

/// One TCP connection.
pub struct Stream {
    pub dialled: Half,
    pub accepted: Half,
    /// How much the dialling side had said when the first byte came back; `None`: none did.
    pub said_before_answer: Option<usize>,
}

/// One direction of it.
pub struct Half {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
    /// The sender ended the direction in order.
    pub ended: bool,
    /// Sequence number of the SYN, once it was seen.
    start: Option<u32>,
    /// What came before its predecessors, by offset.
    early: BTreeMap<u64, Vec<u8>>,
}

impl Streams {
    pub fn take(&mut self, segment: &Segment<'_>) {
        if segment.syn && !segment.ack {
            self.open(segment);
        }
        let (index, dialled) = match (
            self.newest.get(&(segment.from, segment.to)),
            self.newest.get(&(segment.to, segment.from)),
        ) {
            (Some(&index), _) => (index, true),
            (None, Some(&index)) => (index, false),
            (None, None) => return self.without_beginning(segment),
        };
        let stream = &mut self.all[index];
        if !dialled && !segment.payload.is_empty() {
            let said = stream.dialled.bytes.len();
            stream.said_before_answer.get_or_insert(said);
        }
        let half = if dialled {
            &mut stream.dialled
        } else {
            &mut stream.accepted
        };
        if let Err(problem) = half.take(segment) {
            self.findings.push(half.finding_about(problem, segment));
        }
    }

    /// A SYN opens a stream, unless it is one sent again.
    fn open(&mut self, syn: &Segment) {
        let known = self.newest.get(&(syn.from, syn.to));
        if known.is_some_and(|&index| self.all[index].dialled.start == Some(syn.sequence)) {
            return;
        }
        self.newest.insert((syn.from, syn.to), self.all.len());
        self.all.push(Stream {
            dialled: Half::new(syn.from, syn.to),
            accepted: Half::new(syn.to, syn.from),
            said_before_answer: None,
        });
    }

    fn without_beginning(&mut self, segment: &Segment<'_>) {
        // A reset answers what nobody listens to; it carries nothing and opens nothing.
        if segment.reset && segment.payload.is_empty() {
            return;
        }
        let half = Half::new(segment.from, segment.to);
        self.findings
            .push(half.finding_about(Problem::BeginningMissing, segment));
    }

    /// To be called after the last segment: reports what never came.
    pub fn finish(&mut self) {
        for stream in &self.all {
            for half in [&stream.dialled, &stream.accepted] {
                if !half.early.is_empty() {
                    self.findings
                        .push(half.finding(Problem::Gap, half.bytes.len()));
                }
            }
        }
    }
}

impl Half {
    fn new(from: SocketAddr, to: SocketAddr) -> Self {
        let (bytes, early) = (Vec::new(), BTreeMap::new());
        Self {
            from,
            to,
            bytes,
            ended: false,
            start: None,
            early,
        }
    }

    fn take(&mut self, segment: &Segment<'_>) -> Result<(), Problem> {
        if segment.syn {
            self.start = Some(segment.sequence);
            return if segment.payload.is_empty() {
                Ok(())
            } else {
                Err(Problem::DataInSyn)
            };
        }
        self.ended |= segment.fin;
        if segment.payload.is_empty() {
            return Ok(());
        }
        let offset = self.offset_of(segment.sequence)?;
        if offset > self.bytes.len() as u64 {
            let early = self.early.entry(offset).or_default();
            if early.len() < segment.payload.len() {
                early.clear();
                early.extend_from_slice(segment.payload);
            }
            return Ok(());
        }
        self.join(offset, segment.payload)?;
        self.join_early()
    }

    /// Sequence numbers wrap every 4 GiB; the nearest place to what we have is the one meant.
    fn offset_of(&self, sequence: u32) -> Result<u64, Problem> {
        let start = self.start.ok_or(Problem::BeginningMissing)?.wrapping_add(1);
        let have = self.bytes.len() as u64;
        let expected = start.wrapping_add(low_half(have));
        let distance = i64::from(sequence.wrapping_sub(expected).cast_signed());
        have.checked_add_signed(distance)
            .ok_or(Problem::Disagreement)
    }

    /// Appends what now continues the bytes.
    fn join_early(&mut self) -> Result<(), Problem> {
        while let Some(first) = self.early.first_entry() {
            let offset = *first.key();
            if offset > self.bytes.len() as u64 {
                break;
            }
            let payload = first.remove();
            self.join(offset, &payload)?;
        }
        Ok(())
    }

    /// Appends what begins within the bytes or at their end; compares what they already hold.
    fn join(&mut self, offset: u64, payload: &[u8]) -> Result<(), Problem> {
        let offset = usize::try_from(offset).map_err(|_| Problem::Gap)?;
        let overlap = payload.len().min(self.bytes.len() - offset);
        if self.bytes[offset..offset + overlap] != payload[..overlap] {
            return Err(Problem::Disagreement);
        }
        self.bytes.extend_from_slice(&payload[overlap..]);
        Ok(())
    }

    fn finding_about(&self, problem: Problem, segment: &Segment<'_>) -> Finding {
        let bytes = segment.payload.iter().copied().take(SHOWN_BYTES).collect();
        let offset = self.offset_of(segment.sequence).unwrap_or(0);
        Finding {
            problem,
            at: Some(Position {
                from: self.from,
                to: self.to,
                offset,
                bytes,
            }),
        }
    }

    /// About the byte at `offset`.
    pub fn finding(&self, problem: Problem, offset: usize) -> Finding {
        let bytes = self
            .bytes
            .iter()
            .skip(offset)
            .copied()
            .take(SHOWN_BYTES)
            .collect();
        let at = Position {
            from: self.from,
            to: self.to,
            offset: offset as u64,
            bytes,
        };
        Finding {
            problem,
            at: Some(at),
        }
    }
}

fn low_half(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("masked to 32 bits")
}
