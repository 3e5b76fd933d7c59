//! The event log of measured boot: TCG PC Client Platform Firmware Profile, 10, "crypto agile" form.
//!
//! The log is not signed. It is believed as far as replaying it gives what the quote states; what it
//! then says is which event made which value.

use crate::digest::Sha256;
use crate::error::{Malformed, Rejection};
use crate::limits::{EVENT_DIGESTS_MAX, EVENT_LOG_BYTES_MAX, EVENTS_MAX};
use crate::pcr::{ALG_SHA256, PcrValues};
use crate::reader::Reader;
use std::collections::BTreeMap;

const EV_NO_ACTION: u32 = 3;
const SPEC_ID: &[u8; 16] = b"Spec ID Event03\0";
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";
/// PCRs that only firmware extends: a log that says nothing about one of them has it at zero.
const FIRMWARE_PCRS: std::ops::RangeInclusive<u8> = 0..=7;

/// One measurement of the SHA-256 bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub pcr: u8,
    /// As the profile numbers it, 10.4.1.
    pub kind: u32,
    pub digest: Sha256,
    /// What was measured, or a description of it.
    pub data: Vec<u8>,
}

/// A log, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog {
    /// Where PCR 0 begins: the locality of the start (0, 3 or 4).
    startup_locality: u8,
    events: Vec<Event>,
}

impl EventLog {
    /// # Errors
    /// When it is not a crypto-agile log with a SHA-256 bank, or past its bounds.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::of("event log", bytes);
        if bytes.len() > EVENT_LOG_BYTES_MAX {
            return Err(reader.malformed());
        }
        let banks = parse_header(&mut reader)?;
        let mut log = Self {
            startup_locality: 0,
            events: Vec::new(),
        };
        let mut count = 0;
        while !reader.is_empty() {
            count += 1;
            if count > EVENTS_MAX {
                return Err(reader.malformed());
            }
            log.take(parse_event(&mut reader, &banks)?);
        }
        Ok(log)
    }

    /// What PCRs hold after these events, by number; PCRs without an event are not in it.
    #[must_use]
    pub fn replay(&self) -> BTreeMap<u8, Sha256> {
        let mut values = BTreeMap::new();
        for event in &self.events {
            let start = || self.start_of(event.pcr);
            let value = values.entry(event.pcr).or_insert_with(start);
            *value = Sha256::of(&[&value.0, &event.digest.0]);
        }
        values
    }

    /// # Errors
    /// The first quoted PCR that the log does not lead to: of those that it has events for, and of
    /// those that firmware alone extends (0 to 7).
    pub fn check(&self, quoted: &PcrValues) -> Result<(), Rejection> {
        let values = self.replay();
        for (index, value) in quoted.iter() {
            let replayed = match values.get(&index) {
                Some(replayed) => *replayed,
                None if FIRMWARE_PCRS.contains(&index) => self.start_of(index),
                None => continue,
            };
            if replayed != value {
                return Err(Rejection::EventLog {
                    index,
                    replayed,
                    quoted: value,
                });
            }
        }
        Ok(())
    }

    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    fn take(&mut self, event: Event) {
        if event.kind != EV_NO_ACTION {
            self.events.push(event);
        } else if let Some([locality]) = event.data.strip_prefix(STARTUP_LOCALITY) {
            self.startup_locality = *locality;
        }
    }

    fn start_of(&self, pcr: u8) -> Sha256 {
        let mut start = [0; 32];
        if pcr == 0 {
            start[31] = self.startup_locality;
        }
        Sha256(start)
    }
}

/// A bank of the log: algorithm and bytes of its digests.
type Bank = (u16, usize);

/// The first event has the old form and says which banks the others have (10.4.5.1).
fn parse_header(reader: &mut Reader<'_>) -> Result<Vec<Bank>, Malformed> {
    let (_pcr, kind) = (reader.u32_le()?, reader.u32_le()?);
    reader.take(20)?; // the SHA-1 digest, of zeros
    let len = usize::try_from(reader.u32_le()?).map_err(|_| reader.malformed())?;
    let mut header = Reader::of("event log", reader.take(len)?);
    if kind != EV_NO_ACTION || header.take(SPEC_ID.len())? != SPEC_ID {
        return Err(reader.malformed());
    }
    header.take(8)?; // platform class, version of the specification, size of a UINTN
    let count = usize::try_from(header.u32_le()?).map_err(|_| reader.malformed())?;
    if count > EVENT_DIGESTS_MAX {
        return Err(reader.malformed());
    }
    let mut banks = Vec::new();
    for _ in 0..count {
        banks.push((header.u16_le()?, usize::from(header.u16_le()?)));
    }
    let vendor = usize::from(header.u8()?);
    header.take(vendor)?;
    header.end()?;
    match banks.contains(&(ALG_SHA256, 32)) {
        true => Ok(banks),
        false => Err(reader.malformed()),
    }
}

/// TCG_PCR_EVENT2. A digest of a bank that the header does not name has no known length.
fn parse_event(reader: &mut Reader<'_>, banks: &[Bank]) -> Result<Event, Malformed> {
    let pcr = reader.u32_le()?;
    let kind = reader.u32_le()?;
    let mut digest = None;
    let count = usize::try_from(reader.u32_le()?).map_err(|_| reader.malformed())?;
    if count > EVENT_DIGESTS_MAX {
        return Err(reader.malformed());
    }
    for _ in 0..count {
        let algorithm = reader.u16_le()?;
        let bank = banks.iter().find(|(known, _)| *known == algorithm);
        let (_, len) = bank.ok_or(reader.malformed())?;
        let bytes = reader.take(*len)?;
        if let (ALG_SHA256, Ok(bytes)) = (algorithm, bytes.try_into()) {
            digest = Some(Sha256(bytes));
        }
    }
    let len = usize::try_from(reader.u32_le()?).map_err(|_| reader.malformed())?;
    let data = reader.take(len)?.to_vec();
    Ok(Event {
        pcr: u8::try_from(pcr).map_err(|_| reader.malformed())?,
        kind,
        digest: digest.ok_or(reader.malformed())?,
        data,
    })
}

#[cfg(any(test, feature = "testing"))]
impl EventLog {
    /// A log of these events (PCR, kind, data), with the banks SHA-1 and SHA-256.
    #[must_use]
    pub fn encode_for_tests(events: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut header = SPEC_ID.to_vec();
        header.extend_from_slice(&[0, 0, 0, 0, 0, 2, 0, 2]);
        header.extend_from_slice(&2_u32.to_le_bytes());
        for (algorithm, len) in [(4_u16, 20_u16), (ALG_SHA256, 32)] {
            header.extend_from_slice(&algorithm.to_le_bytes());
            header.extend_from_slice(&len.to_le_bytes());
        }
        header.push(0);
        let mut out = Vec::new();
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&EV_NO_ACTION.to_le_bytes());
        out.extend_from_slice(&[0; 20]);
        put_le(&mut out, &header);
        for (pcr, kind, data) in events {
            out.extend_from_slice(&pcr.to_le_bytes());
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&2_u32.to_le_bytes());
            out.extend_from_slice(&4_u16.to_le_bytes());
            out.extend_from_slice(&[0; 20]);
            out.extend_from_slice(&ALG_SHA256.to_le_bytes());
            out.extend_from_slice(&Sha256::of(&[data]).0);
            put_le(&mut out, data);
        }
        out
    }
}

#[cfg(any(test, feature = "testing"))]
fn put_le(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("a test's event is short");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EV_POST_CODE: u32 = 1;

    fn log(events: &[(u32, u32, &[u8])]) -> EventLog {
        EventLog::parse(&EventLog::encode_for_tests(events)).expect("a whole log")
    }

    #[test]
    fn a_log_replays_to_what_a_tpm_that_was_extended_by_it_holds() {
        let log = log(&[
            (0, EV_POST_CODE, b"a"),
            (7, EV_POST_CODE, b"b"),
            (0, EV_POST_CODE, b"c"),
        ]);
        let once = Sha256::of(&[&[0; 32], &Sha256::of(&[b"a"]).0]);
        let twice = Sha256::of(&[&once.0, &Sha256::of(&[b"c"]).0]);
        assert_eq!(log.replay()[&0], twice);
        assert_eq!(log.replay().len(), 2);
        assert_eq!(log.check(&PcrValues::new([(0, twice)])), Ok(()));
    }

    #[test]
    fn a_log_without_one_event_is_refused_and_the_pcr_named() {
        let whole = log(&[(0, EV_POST_CODE, b"a"), (7, EV_POST_CODE, b"b")]);
        let quoted = PcrValues::new(whole.replay());
        let shorter = log(&[(0, EV_POST_CODE, b"a")]);
        let refused = shorter.check(&quoted).expect_err("PCR 7 was extended");
        assert!(
            matches!(refused, Rejection::EventLog { index: 7, .. }),
            "{refused}"
        );
    }

    #[test]
    fn pcrs_that_others_extend_may_be_missing_in_the_log() {
        let log = log(&[(0, EV_POST_CODE, b"a")]);
        let ima = (10, Sha256([7; 32]));
        let values = log.replay().into_iter().chain([ima]);
        assert_eq!(log.check(&PcrValues::new(values)), Ok(()));
    }

    #[test]
    fn pcr_0_begins_at_the_locality_of_the_start() {
        let mut locality = STARTUP_LOCALITY.to_vec();
        locality.push(3);
        let log = log(&[(0, EV_NO_ACTION, &locality), (0, EV_POST_CODE, b"a")]);
        let mut start = [0; 32];
        start[31] = 3;
        let expected = Sha256::of(&[&start, &Sha256::of(&[b"a"]).0]);
        assert_eq!(log.replay()[&0], expected);
        assert_eq!(log.events().len(), 1);
    }

    #[test]
    fn a_log_cut_anywhere_within_an_event_is_malformed() {
        let bytes = EventLog::encode_for_tests(&[(0, EV_POST_CODE, b"a")]);
        let header = EventLog::encode_for_tests(&[]).len();
        for end in (0..bytes.len()).filter(|end| *end != header) {
            assert!(EventLog::parse(&bytes[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn more_events_than_the_bound_are_malformed() {
        let event: (u32, u32, &[u8]) = (0, EV_POST_CODE, b"");
        let most = EVENT_LOG_BYTES_MAX / 70;
        let bytes = EventLog::encode_for_tests(&vec![event; most.min(EVENTS_MAX) + 1]);
        assert!(EventLog::parse(&bytes).is_err());
        let long = EventLog::encode_for_tests(&[event; 4]);
        assert!(EventLog::parse(&long).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_log_parses_leads_to_what_it_replays(at in any::<prop::sample::Index>(), byte: u8) {
            let events: [(u32, u32, &[u8]); 3] =
                [(0, EV_POST_CODE, b"a"), (7, EV_POST_CODE, b"b"), (0, EV_NO_ACTION, b"c")];
            let mut bytes = EventLog::encode_for_tests(&events);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(log) = EventLog::parse(&bytes) {
                prop_assert_eq!(log.check(&PcrValues::new(log.replay())), Ok(()));
            }
        }
    }
}
