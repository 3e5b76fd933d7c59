//! What the oracle objects to.

use std::fmt;
use std::net::SocketAddr;

/// One direction of one stream, and the byte at which it stops being what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub problem: Problem,
    /// `None`: it is about the capture as a whole.
    pub at: Option<Position>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub offset: u64,
    /// The first bytes from there on.
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The capture is not complete: nothing can be said about what it lacks.
    PacketsDropped(u64),
    /// Neither TCP nor one of the enumerated exceptions.
    UnexpectedPacket(String),
    /// TCP that is not between a node's address and the other's peer port.
    UnexpectedTuple,
    DataInSyn,
    /// A stream whose beginning was not captured cannot be parsed.
    BeginningMissing,
    /// Bytes that never came, before others that did.
    Gap,
    /// A retransmission with other bytes than before.
    Disagreement,
    /// The bytes cannot be what is due at this place.
    NotA(&'static str),
    /// The direction ended inside of it.
    EndsInside(&'static str),
    /// Bytes that only an application's plaintext has.
    Plaintext,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PacketsDropped(count) => write!(f, "the capture lost {count} packets"),
            Self::UnexpectedPacket(what) => write!(f, "unexpected packet: {what}"),
            Self::UnexpectedTuple => f.write_str("TCP that is not between nodes and peer port"),
            Self::DataInSyn => f.write_str("data in a SYN"),
            Self::BeginningMissing => f.write_str("a stream without its beginning"),
            Self::Gap => f.write_str("a gap in the stream"),
            Self::Disagreement => f.write_str("a retransmission with other bytes"),
            Self::NotA(due) => write!(f, "not a {due}"),
            Self::EndsInside(due) => write!(f, "the stream ends inside a {due}"),
            Self::Plaintext => f.write_str("an application's plaintext"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)?;
        if let Some(at) = &self.at {
            write!(
                f,
                ", {} -> {} at byte {}: {}",
                at.from,
                at.to,
                at.offset,
                dump(&at.bytes)
            )?;
        }
        Ok(())
    }
}

/// Bytes as a person wants to see them: hexadecimal, and what of it is text.
fn dump(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(16)];
    let hex: Vec<_> = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    let text: String = shown
        .iter()
        .map(|&byte| {
            if byte.is_ascii_graphic() || byte == b' ' {
                char::from(byte)
            } else {
                '.'
            }
        })
        .collect();
    format!("{} |{text}|", hex.join(" "))
}
