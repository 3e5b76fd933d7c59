//! Goal: a first flight is taken at most once, only by whom it is for, and a failed one leaves no
//! trace.
//!
//! ```text
//!   Outbound ── opening, header, record 0 ──► Inbound     (fixed link secrets, no TLS)
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "tests are where the time comes from"
)]

use kedge_link::limits::{EPOCH_AGE, EPOCH_GRACE, EPOCH_NUMBERS, EPOCHS_AHEAD_MAX, WINDOW_NUMBERS};
use kedge_link::testing::{Half, LinkInputs};
use kedge_link::wire::{Header, LinkId, Opening, Record0};
use kedge_link::{Flight, FlightError, Handle, Inbound, ProofKind, Role};
use kedge_model::{OriginalDst, Refusal, SourceAddr, Suite};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

/// Two nodes of one link; `client` opens, `server` accepts, unless a test says otherwise.
struct Link {
    now: Instant,
    client: Half,
    server: Half,
}

impl Link {
    fn new() -> Self {
        let now = Instant::now();
        let inputs = LinkInputs::fixed(Suite::Aes256Gcm);
        let half = |role| inputs.half(role, now);
        Self {
            now,
            client: half(Role::TlsClient),
            server: half(Role::TlsServer),
        }
    }

    /// The client's next first flight.
    fn flight(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.client
            .outbound
            .open_flow(self.now)
            .expect("numbers")
            .seal_record0(&record0(), &mut bytes);
        bytes
    }

    /// Uses up `count` flow numbers of the client.
    fn skip(&mut self, count: u64) {
        for _ in 0..count {
            self.client.outbound.open_flow(self.now).expect("numbers");
        }
    }

    fn take(&mut self, flight: &[u8]) -> Result<Flight, FlightError> {
        take(&mut self.server.inbound, self.now, flight)
    }
}

fn record0() -> Record0 {
    Record0 {
        source: Handle(1),
        source_proof: ProofKind::AssertedByNode,
        destination: Handle(2),
        source_address: SourceAddr::new("10.0.0.1:40000".parse().expect("literal")),
        destination_address: OriginalDst::new("10.0.0.2:80".parse().expect("literal")),
        destination_instance: Vec::new(),
    }
}

fn take(inbound: &mut Inbound, now: Instant, flight: &[u8]) -> Result<Flight, FlightError> {
    let mut flight = flight.to_vec();
    let (header, record) = flight.split_first_chunk_mut().expect("a header");
    let header = Header::parse(header)?;
    let opened = inbound.flow_secret(now, &header)?.open_record0(record)?;
    inbound.commit(now, opened)
}

fn header_of(flight: &[u8]) -> Header {
    Header::parse(flight.first_chunk().expect("a header")).expect("our own")
}

/// `flight` with another header, its record unchanged.
fn with_header(flight: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = header_of(flight);
    change(&mut header);
    [&header.encode()[..], &flight[Header::LEN..]].concat()
}

#[test]
fn a_reflected_first_flight_is_refused() {
    let mut link = Link::new();
    let flight = link.flight();
    let reflected = take(&mut link.client.inbound, link.now, &flight);
    assert_eq!(reflected.err(), Some(FlightError::Reflected));
    let opening = link.client.outbound.opening().expect("numbers");
    let opening = Opening::parse(&opening).expect("our own");
    assert_eq!(
        link.client.inbound.check_opening(&opening),
        Err(FlightError::Reflected)
    );
}

#[test]
fn a_reflected_first_flight_with_the_role_rewritten_does_not_open() {
    let mut link = Link::new();
    let flight = link.flight();
    let rewritten = with_header(&flight, |header| header.role = Role::TlsServer);
    let result = take(&mut link.client.inbound, link.now, &rewritten);
    assert_eq!(result.err(), Some(FlightError::Forged));
}

#[test]
fn the_largest_number_with_a_bad_tag_leaves_the_window_unchanged() {
    let mut link = Link::new();
    let (first, second) = (link.flight(), link.flight());
    assert!(link.take(&second).is_ok());
    let forged = with_header(&second, |header| header.number = u64::MAX);
    assert_eq!(link.take(&forged).err(), Some(FlightError::Forged));
    assert!(link.take(&first).is_ok(), "number 1 is still in the window");
    assert_eq!(link.take(&second).err(), Some(FlightError::Replayed(2)));
}

#[test]
fn sixteen_threads_with_one_replayed_flight_get_one_delivery() {
    let mut link = Link::new();
    for _ in 0..20 {
        let flight = link.flight();
        let now = link.now;
        let inbound = Mutex::new(&mut link.server.inbound);
        let barrier = Barrier::new(16);
        let deliveries: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..16)
                .map(|_| scope.spawn(|| race(&inbound, &barrier, now, &flight)))
                .collect();
            racers
                .into_iter()
                .map(|racer| usize::from(racer.join().expect("no panic")))
                .sum()
        });
        assert_eq!(deliveries, 1);
    }
}

/// As a worker does: the lock is not held while record 0 is opened, so all of them open it.
fn race(inbound: &Mutex<&mut Inbound>, barrier: &Barrier, now: Instant, flight: &[u8]) -> bool {
    let header = header_of(flight);
    let lock = || inbound.lock().expect("no panic");
    let pending = lock().flow_secret(now, &header).expect("not taken yet");
    let mut record = flight[Header::LEN..].to_vec();
    let opened = pending.open_record0(&mut record).expect("authentic");
    barrier.wait();
    lock().commit(now, opened).is_ok()
}

#[test]
fn a_flight_is_of_one_link_suite_epoch_and_number() {
    let mut link = Link::new();
    let flight = link.flight();
    let refusal = |link: &mut Link, change: fn(&mut Header)| {
        link.take(&with_header(&flight, change))
            .err()
            .expect("refused")
    };
    assert_eq!(
        refusal(&mut link, |h| h.link_id = LinkId([9; 16])),
        FlightError::OtherLink
    );
    assert_eq!(
        refusal(&mut link, |h| h.suite = Suite::Aes128Gcm),
        FlightError::OtherSuite
    );
    assert_eq!(refusal(&mut link, |h| h.epoch = 1), FlightError::Forged);
    assert_eq!(refusal(&mut link, |h| h.number = 2), FlightError::Forged);
    assert_eq!(refusal(&mut link, |h| h.number = 0), FlightError::TooOld(0));
    assert_eq!(FlightError::OtherLink.refusal(), Refusal::UnknownLink);
    assert!(link.take(&flight).is_ok(), "none of these took its number");
}

#[test]
fn every_changed_byte_of_a_flight_is_refused_and_leaves_it_takeable() {
    let mut link = Link::new();
    let flight = link.flight();
    for at in 0..flight.len() {
        let mut changed = flight.clone();
        changed[at] ^= 0x01;
        assert!(link.take(&changed).is_err(), "byte {at}");
    }
    assert!(link.take(&flight).is_ok());
}

#[test]
fn a_flight_cut_anywhere_is_refused() {
    let mut link = Link::new();
    let flight = link.flight();
    for end in Header::LEN..flight.len() {
        assert_eq!(
            link.take(&flight[..end]).err(),
            Some(FlightError::Forged),
            "cut at {end}"
        );
    }
    let longer = [&flight[..], &[0]].concat();
    assert_eq!(link.take(&longer).err(), Some(FlightError::Forged));
}

#[test]
fn a_number_behind_the_window_is_too_old() {
    let mut link = Link::new();
    let (first, second) = (link.flight(), link.flight());
    link.skip(WINDOW_NUMBERS - 2);
    let newest = link.flight();
    assert_eq!(header_of(&newest).number, WINDOW_NUMBERS + 1);
    assert!(link.take(&newest).is_ok());
    assert_eq!(link.take(&first).err(), Some(FlightError::TooOld(1)));
    assert!(
        link.take(&second).is_ok(),
        "the oldest number of the window"
    );
}

#[test]
fn the_opener_ratchets_by_numbers_and_by_age() {
    let mut link = Link::new();
    link.skip(EPOCH_NUMBERS - 1);
    assert_eq!(header_of(&link.flight()).epoch, 0);
    assert_eq!(header_of(&link.flight()).epoch, 1);
    link.now += EPOCH_AGE - Duration::from_millis(1);
    assert_eq!(header_of(&link.flight()).epoch, 1);
    link.now += Duration::from_millis(1);
    let flight = link.flight();
    assert_eq!(header_of(&flight).epoch, 2);
    assert!(link.take(&flight).is_ok(), "the acceptor follows");
}

#[test]
fn an_epoch_too_far_ahead_is_refused_and_the_last_allowed_is_taken() {
    let mut link = Link::new();
    for _ in 0..EPOCHS_AHEAD_MAX {
        link.now += EPOCH_AGE;
        link.skip(1);
    }
    let last_allowed = link.flight();
    link.now += EPOCH_AGE;
    let too_far = link.flight();
    assert_eq!(header_of(&too_far).epoch, EPOCHS_AHEAD_MAX + 1);
    assert_eq!(
        link.take(&too_far).err(),
        Some(FlightError::EpochTooFar(EPOCHS_AHEAD_MAX + 1))
    );
    assert!(link.take(&last_allowed).is_ok());
    assert!(link.take(&too_far).is_ok(), "now it is only one ahead");
}

#[test]
fn an_old_epoch_is_erased_ten_seconds_after_a_newer_one() {
    let mut link = Link::new();
    let (in_time, late) = (link.flight(), link.flight());
    link.now += EPOCH_AGE;
    let newer = link.flight();
    assert_eq!(link.server.inbound.poll_timeout(), None);
    assert!(link.take(&newer).is_ok());
    assert_eq!(
        link.server.inbound.poll_timeout(),
        Some(link.now + EPOCH_GRACE)
    );
    link.now += EPOCH_GRACE - Duration::from_millis(1);
    assert!(link.take(&in_time).is_ok());
    link.now += Duration::from_millis(1);
    assert_eq!(link.take(&late).err(), Some(FlightError::EpochErased(0)));
    assert_eq!(link.server.inbound.poll_timeout(), None);
}

#[test]
fn an_old_epoch_is_erased_when_the_window_has_passed_it() {
    let mut link = Link::new();
    link.skip(EPOCH_NUMBERS);
    let next_epoch = link.flight();
    assert!(link.take(&next_epoch).is_ok());
    assert!(
        link.server.inbound.poll_timeout().is_some(),
        "epoch 0 is kept for stragglers"
    );
    link.skip(WINDOW_NUMBERS - 2);
    let (far, farther) = (link.flight(), link.flight());
    for flight in [&far, &farther] {
        assert!(link.take(flight).is_ok());
    }
    let straggler = with_header(&next_epoch, |header| {
        header.number = WINDOW_NUMBERS;
        header.epoch = 0;
    });
    assert_eq!(
        link.take(&straggler).err(),
        Some(FlightError::EpochErased(0))
    );
}

#[test]
fn a_forged_flight_of_a_later_epoch_does_not_age_the_present_one() {
    let mut link = Link::new();
    let flight = link.flight();
    let forged = with_header(&flight, |header| header.epoch = 40);
    assert_eq!(link.take(&forged).err(), Some(FlightError::Forged));
    assert_eq!(link.server.inbound.poll_timeout(), None);
    link.now += EPOCH_GRACE * 2;
    assert!(link.take(&flight).is_ok());
}

#[test]
fn a_carrier_opening_is_taken_once_and_only_with_its_tag() {
    let mut link = Link::new();
    let bytes = link.client.outbound.opening().expect("numbers");
    for at in 0..bytes.len() {
        let mut changed = bytes;
        changed[at] ^= 0x01;
        let refused = match Opening::parse(&changed) {
            Err(_) => true,
            Ok(opening) => link.server.inbound.check_opening(&opening).is_err(),
        };
        assert!(refused, "byte {at}");
    }
    let opening = Opening::parse(&bytes).expect("our own");
    assert_eq!(link.server.inbound.check_opening(&opening), Ok(()));
    let again = link.server.inbound.check_opening(&opening);
    assert_eq!(again, Err(FlightError::Replayed(1)));
    assert_eq!(FlightError::Replayed(1).refusal(), Refusal::Replayed);
}
