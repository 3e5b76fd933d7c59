//! What may stand in a stream between two nodes (docs/protocol.md): a link is TLS from its first
//! byte; a carrier is an opening, a clear header, then records; the accepting side of a carrier
//! sends records only. A flow that goes on on another carrier begins there with a continuation and
//! its confirmation.

use super::finding::{Finding, Problem};
use super::streams::Half;

pub const OPENING_LEN: usize = 43;
pub const HEADER_LEN: usize = 33;
pub const CONTINUATION_LEN: usize = 56;
pub const CONFIRMATION_LEN: usize = 16;
const RECORD_HEADER_LEN: usize = 5;
/// RFC 8446, 5.2: 2^14 bytes and at most 256 of padding, type and tag.
const RECORD_BODY_MAX: usize = 16_384 + 256;
/// An inner type and a tag of 16 bytes: the smallest body of a sealed record.
const SEALED_BODY_MIN: usize = 17;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const SUITES: [u16; 3] = [0x1301, 0x1302, 0x1303];

/// By the first byte that the dialling side sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Link,
    Carrier,
    Continuation,
    /// Opened and never used.
    Silent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub records: u64,
    /// Bytes inside records.
    pub sealed_bytes: u64,
}

/// # Errors
/// When the first byte begins nothing that belongs here.
pub fn kind(dialled: &Half) -> Result<Kind, Finding> {
    match dialled.bytes.first() {
        None => Ok(Kind::Silent),
        Some(&HANDSHAKE) => Ok(Kind::Link),
        Some(b'O') => Ok(Kind::Carrier),
        Some(b'C') => Ok(Kind::Continuation),
        Some(_) => Err(dialled.finding(Problem::NotA("link or carrier"), 0)),
    }
}

/// Either direction of a link.
///
/// # Errors
/// The first byte that is not part of a TLS record.
pub fn check_link(half: &Half) -> Result<Counts, Finding> {
    records(half, 0, |kind| {
        (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind)
    })
}

/// The dialling direction of a carrier: whether a flow was on it, and its records.
///
/// # Errors
/// The first byte that cannot be at its place.
pub fn check_carrier(half: &Half) -> Result<(bool, Counts), Finding> {
    let opening = part(half, 0, OPENING_LEN, "carrier opening")?;
    let opened_link = match opening {
        Some(bytes) if bytes[..2] == *b"O\x01" && bytes[2] <= 1 => &bytes[3..19],
        Some(_) => return Err(half.finding(Problem::NotA("carrier opening"), 0)),
        None => return Ok((false, Counts::default())),
    };
    let Some(header) = part(half, OPENING_LEN, HEADER_LEN, "clear header")? else {
        return Ok((false, Counts::default()));
    };
    let suite = u16::from_be_bytes([header[2], header[3]]);
    let valid = header[..2] == *b"H\x01"
        && SUITES.contains(&suite)
        && header[4] <= 1
        && header[5..21] == *opened_link;
    if !valid {
        return Err(half.finding(Problem::NotA("clear header"), OPENING_LEN));
    }
    let counts = check_sealed(half, OPENING_LEN + HEADER_LEN)?;
    Ok((true, counts))
}

/// A carrier on which one direction of a flow goes on, and the other says nothing.
///
/// # Errors
/// The first byte that cannot be at its place.
pub fn check_continuation(dialled: &Half, accepted: &Half) -> Result<Counts, Finding> {
    let Some(continuation) = part(dialled, 0, CONTINUATION_LEN, "continuation")? else {
        return Ok(Counts::default());
    };
    part(accepted, 0, CONFIRMATION_LEN, "confirmation")?;
    let sides = [(dialled, CONTINUATION_LEN), (accepted, CONFIRMATION_LEN)];
    let [(speaker, start), (silent, end)] = match (&continuation[1..3], continuation[27]) {
        ([1, 0 | 1], 0) => sides,
        ([1, 0 | 1], 1) => [sides[1], sides[0]],
        _ => return Err(dialled.finding(Problem::NotA("continuation"), 0)),
    };
    if silent.bytes.len() > end {
        return Err(silent.finding(Problem::NotA("silent direction"), end));
    }
    check_sealed(speaker, start)
}

/// Where record 0 of a checked carrier ends, and what the application says begins.
pub fn end_of_record0(dialled: &Half) -> usize {
    let start = OPENING_LEN + HEADER_LEN;
    let header = dialled.bytes.get(start..start + RECORD_HEADER_LEN);
    let length = header.map_or(0, |header| u16::from_be_bytes([header[3], header[4]]));
    start + RECORD_HEADER_LEN + usize::from(length)
}

/// Sealed records only, from `start` on: the accepting direction of a carrier, from its first byte.
///
/// # Errors
/// The first byte that is not part of one.
pub fn check_sealed(half: &Half, start: usize) -> Result<Counts, Finding> {
    records(half, start, |kind| kind == APPLICATION_DATA)
}

/// A fixed part, `None` where the direction is not that far.
fn part<'h>(
    half: &'h Half,
    start: usize,
    length: usize,
    name: &'static str,
) -> Result<Option<&'h [u8]>, Finding> {
    let rest = &half.bytes[start.min(half.bytes.len())..];
    match rest.get(..length) {
        Some(bytes) => Ok(Some(bytes)),
        None if rest.is_empty() || !half.ended => Ok(None),
        None => Err(half.finding(Problem::EndsInside(name), start)),
    }
}

fn records(half: &Half, start: usize, allowed: impl Fn(u8) -> bool) -> Result<Counts, Finding> {
    let mut counts = Counts::default();
    let mut offset = start;
    while let Some(header) = part(half, offset, RECORD_HEADER_LEN, "TLS record")? {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if !allowed(header[0]) || !is_record(header, length, offset) {
            return Err(half.finding(Problem::NotA("TLS record"), offset));
        }
        if part(half, offset, RECORD_HEADER_LEN + length, "TLS record")?.is_none() {
            break;
        }
        counts.records += 1;
        counts.sealed_bytes += length as u64;
        offset += RECORD_HEADER_LEN + length;
    }
    Ok(counts)
}

fn is_record(header: &[u8], length: usize, offset: usize) -> bool {
    let version = u16::from_be_bytes([header[1], header[2]]);
    // RFC 8446, 5.1: the first ClientHello may say TLS 1.0.
    let version_is_due = version == 0x0303 || (version == 0x0301 && offset == 0);
    let length_is_due = match header[0] {
        CHANGE_CIPHER_SPEC => length == 1,
        ALERT => length == 2,
        APPLICATION_DATA => (SEALED_BODY_MIN..=RECORD_BODY_MAX).contains(&length),
        _ => (1..=RECORD_BODY_MAX).contains(&length),
    };
    version_is_due && length_is_due
}
