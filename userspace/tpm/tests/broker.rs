//! Goal: many callers share few quotes of one TPM, whatever it and they do, and nobody's door opens to
//! more than it says.
//!
//! ```text
//!   1,000 callers ── LocalDoor ──► Broker ── owner thread ──► a TPM in software that is slow, hangs
//!                                                             or fails, as each test says
//! ```

use kedge_attest::testing::SoftTpm;
use kedge_attest::{
    AkPublic, BatchError, Caller, Credential, Evidence, LinkExporter, Nonce, PcrSelection, Purpose,
    Quote, Sha256, Tpm, TpmError, limits, qualifying_data,
};
use kedge_tpm::{AskError, Broker, Description};
use rustls_pki_types::CertificateDer;
use std::collections::HashSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zeroize::Zeroizing;

/// A TPM that has a fault, for tests only: it takes its time, waits for the test before each quote,
/// answers with an error, or dies.
#[derive(Default)]
struct Faulty {
    inner: SoftTpm,
    takes: Duration,
    /// Each quote tells the test that it has begun, then waits for it; for ever while it hangs.
    stage: Option<(UnboundedSender<()>, Receiver<()>)>,
    error: Arc<Mutex<Option<TpmError>>>,
    dies: bool,
}

impl Tpm for Faulty {
    fn ak_public(&mut self) -> Result<AkPublic, TpmError> {
        self.inner.ak_public()
    }

    fn ek_certificate(&mut self) -> Result<CertificateDer<'static>, TpmError> {
        self.inner.ek_certificate()
    }

    fn quote(&mut self, qualifying: &[u8; 32], pcrs: PcrSelection) -> Result<Quote, TpmError> {
        std::thread::sleep(self.takes);
        if let Some((begun, permits)) = &self.stage {
            let _ = begun.send(());
            let _ = permits.recv();
        }
        assert!(!self.dies, "told to die");
        self.inner.fault = self.error.lock().expect("no panic").clone();
        self.inner.quote(qualifying, pcrs)
    }

    fn activate_credential(
        &mut self,
        credential: &Credential,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.inner.activate_credential(credential)
    }
}

/// The test's side of a TPM that quotes when the test says so.
struct Stage {
    begun: UnboundedReceiver<()>,
    permit: Sender<()>,
}

impl Stage {
    async fn quote_begins(&mut self) {
        self.begun.recv().await.expect("the owner lives");
    }

    fn let_it_end(&self) {
        self.permit.send(()).expect("the owner listens");
    }
}

fn hanging() -> (Faulty, Stage) {
    let ((begin, begun), (permit, permits)) = (unbounded_channel(), channel());
    let faulty = Faulty {
        stage: Some((begin, permits)),
        ..Faulty::default()
    };
    (faulty, Stage { begun, permit })
}

/// Lets the others run until this is so.
async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn start(tpm: impl Tpm + 'static) -> Broker {
    Broker::start(tpm, description()).expect("starts")
}

fn description() -> Description {
    Description {
        node_key: Sha256([1; 32]),
        pcrs: PcrSelection::of(&[0, 7]),
        ak_chain: Vec::new(),
        event_log: None,
    }
}

fn caller(name: &str) -> Caller {
    Caller::new(name).expect("short")
}

fn nonce(number: u64) -> Nonce {
    Nonce::new([&number.to_be_bytes()[..], &[0; 8]].concat()).expect("16 bytes")
}

/// What the quote signed is the tree that the proof leads to from what was asked.
fn answers(evidence: &Evidence, caller: &str, number: u64) -> bool {
    let claims = &evidence.claims;
    let inclusion = &evidence.inclusion;
    let root = inclusion.root(claims.leaf()).expect("a proof");
    let attest = kedge_attest::Attest::parse(&evidence.quoted.attest).expect("a quote");
    (claims.caller.as_str(), &claims.nonce) == (caller, &nonce(number))
        && attest.extra_data == qualifying_data(inclusion.size, root).0
}

/// As many callers as may, each with one challenge, all at once.
async fn ask_at_once(broker: &Broker, callers: u64) -> Vec<Evidence> {
    let tasks: Vec<_> = (0..callers)
        .map(|number| {
            let door = broker.local_door();
            tokio::spawn(async move {
                let name = format!("pod-{number}");
                let evidence = door.attest(caller(&name), nonce(number)).await;
                let evidence = evidence.expect("there is room");
                assert!(answers(&evidence, &name, number));
                evidence
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.expect("no panic"));
    }
    all
}

#[tokio::test]
async fn a_thousand_callers_at_once_cost_at_most_one_quote_in_a_hundred() {
    let broker = start(Faulty {
        takes: Duration::from_millis(200),
        ..Faulty::default()
    });
    let all = ask_at_once(&broker, 1_000).await;
    let quotes: HashSet<_> = all.iter().map(|one| one.quoted.attest.clone()).collect();
    let counters = broker.counters();
    assert_eq!((counters.challenges, counters.waiting), (1_000, 0));
    assert_eq!(counters.quotes, quotes.len() as u64);
    assert!(counters.quotes <= 10, "{counters:?}");
}

#[tokio::test]
async fn a_caller_waits_for_the_quote_under_way_and_its_own_and_no_third() {
    let (tpm, mut stage) = hanging();
    let broker = start(tpm);
    let door = broker.local_door();
    let ask = |number| {
        let door = door.clone();
        tokio::spawn(async move { door.attest(caller("pod"), nonce(number)).await })
    };
    let first = ask(0);
    stage.quote_begins().await;
    let during: Vec<_> = (1..20).map(ask).collect();
    until(|| broker.counters().waiting == 19).await;
    stage.let_it_end();
    assert!(first.await.expect("no panic").is_ok());
    stage.quote_begins().await;
    stage.let_it_end();
    for one in during {
        assert!(one.await.expect("no panic").is_ok());
    }
    let counters = broker.counters();
    assert_eq!((counters.quotes, counters.challenges), (2, 20));
}

#[tokio::test]
async fn a_tpm_that_hangs_blocks_nobody_and_serves_again_when_it_is_back() {
    let (tpm, mut stage) = hanging();
    let broker = start(tpm);
    let door = broker.local_door();
    let soon = Duration::from_millis(20);
    for number in 0..3 {
        let answer = door.attest(caller("pod"), nonce(number));
        assert!(
            tokio::time::timeout(soon, answer).await.is_err(),
            "it hangs"
        );
    }
    // Of those who left, the first is in the quote under way; the others are in none.
    let back = tokio::spawn(async move { door.attest(caller("pod"), nonce(9)).await });
    until(|| broker.counters().waiting == 3).await;
    stage.let_it_end();
    stage.let_it_end();
    let evidence = back.await.expect("no panic").expect("it is back");
    assert_eq!(evidence.inclusion.size, 1);
    assert_eq!(broker.counters().challenges, 2);
    stage.quote_begins().await;
}

#[tokio::test]
async fn what_fills_the_room_while_the_tpm_hangs_is_refused_and_links_have_their_own() {
    let (tpm, mut stage) = hanging();
    let broker = start(tpm);
    let local = |number: u64| {
        let door = broker.local_door();
        let name = caller(&format!("pod-{number}"));
        tokio::spawn(async move { door.attest(name, nonce(number)).await })
    };
    let first = local(0);
    stage.quote_begins().await;
    let bound = limits::LOCAL_WAITING_MAX;
    let crowd: Vec<_> = (1..=bound as u64).map(local).collect();
    until(|| broker.counters().waiting == bound).await;
    let refused = local(0).await.expect("no panic").err();
    assert_eq!(refused, Some(AskError::Batch(BatchError::Full(bound))));
    let links = broker.link_door();
    let exporter = LinkExporter::for_tests([5; 32]);
    let link = tokio::spawn(async move { links.attest(caller("a"), exporter, nonce(1)).await });
    until(|| broker.counters().waiting == bound + 1).await;
    stage.let_it_end();
    stage.let_it_end();
    let evidence = link.await.expect("no panic").expect("links have room");
    assert_eq!(evidence.claims.purpose, Purpose::Link);
    for one in crowd.into_iter().chain([first]) {
        assert!(one.await.expect("no panic").is_ok());
    }
    assert_eq!(broker.counters().quotes, 2);
}

#[tokio::test]
async fn an_error_of_the_tpm_is_told_to_who_waits_and_passes() {
    let tpm = Faulty::default();
    let error = Arc::clone(&tpm.error);
    let broker = start(tpm);
    let door = broker.local_door();
    let lockout = TpmError::Lockout("quote");
    *error.lock().expect("no panic") = Some(lockout.clone());
    let refused = door.attest(caller("pod"), nonce(1)).await.err();
    assert_eq!(refused, Some(AskError::Tpm(lockout)));
    *error.lock().expect("no panic") = None;
    assert!(door.attest(caller("pod"), nonce(2)).await.is_ok());
    let counters = broker.counters();
    assert_eq!((counters.quotes, counters.errors), (1, 1));
}

#[tokio::test]
async fn an_owner_that_dies_leaves_nobody_waiting() {
    let (mut tpm, mut stage) = hanging();
    tpm.dies = true;
    let broker = start(tpm);
    let ask = |number| {
        let door = broker.local_door();
        tokio::spawn(async move { door.attest(caller("pod"), nonce(number)).await })
    };
    let mut waiting = vec![ask(0)];
    stage.quote_begins().await;
    waiting.extend((1..4).map(ask));
    until(|| broker.counters().waiting == 3).await;
    stage.let_it_end();
    let gone = Some(AskError::Tpm(TpmError::Gone));
    for one in waiting {
        assert_eq!(one.await.expect("no panic").err(), gone);
    }
    assert_eq!(ask(9).await.expect("no panic").err(), gone);
    assert_eq!(broker.ek_certificate().await.err(), Some(TpmError::Gone));
}

#[tokio::test]
async fn other_commands_take_their_turn_between_quotes() {
    let (tpm, mut stage) = hanging();
    let broker = start(tpm);
    let ask = |number| {
        let door = broker.local_door();
        tokio::spawn(async move { door.attest(caller("pod"), nonce(number)).await })
    };
    let first = ask(1);
    stage.quote_begins().await;
    let other = broker.clone();
    let asked = tokio::spawn(async move { other.ek_certificate().await });
    let second = ask(2);
    until(|| broker.counters().waiting == 1).await;
    stage.let_it_end();
    assert!(first.await.expect("no panic").is_ok());
    // The second quote hangs. What was asked before it is answered as soon as it ends, or sooner.
    stage.quote_begins().await;
    stage.let_it_end();
    assert_eq!(
        asked.await.expect("no panic").err(),
        Some(TpmError::NoEkCertificate)
    );
    assert!(second.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn commands_past_their_bound_are_refused_at_once() {
    let (tpm, mut stage) = hanging();
    let broker = start(tpm);
    let door = broker.local_door();
    let first = tokio::spawn(async move { door.attest(caller("pod"), nonce(1)).await });
    stage.quote_begins().await;
    let bound = kedge_tpm::limits::COMMANDS_MAX;
    let commands: Vec<_> = (0..=bound)
        .map(|_| {
            let broker = broker.clone();
            tokio::spawn(async move { broker.ek_certificate().await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // A challenge needs no command to be answered.
    let door = broker.local_door();
    let second = tokio::spawn(async move { door.attest(caller("pod"), nonce(2)).await });
    until(|| broker.counters().waiting == 1).await;
    stage.let_it_end();
    stage.let_it_end();
    let mut refused = 0;
    for command in commands {
        match command.await.expect("no panic") {
            Err(TpmError::Busy(limit)) => refused += usize::from(limit == bound),
            other => assert_eq!(other.err(), Some(TpmError::NoEkCertificate)),
        }
    }
    assert_eq!(refused, 1);
    assert!(first.await.expect("no panic").is_ok());
    assert!(second.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn each_door_gives_evidence_of_its_own_purpose() {
    let broker = start(SoftTpm::default());
    let local = broker.local_door().attest(caller("pod"), nonce(1)).await;
    let exporter = LinkExporter::for_tests([5; 32]);
    let link = broker
        .link_door()
        .attest(caller("a"), exporter, nonce(1))
        .await;
    let appraisal = broker.appraisal(caller("v"), nonce(1)).await;
    let enrolment = broker.enrolment(caller("ca"), nonce(1)).await;
    let purposes =
        [local, link, appraisal, enrolment].map(|one| one.expect("quoted").claims.purpose);
    let expected = [
        Purpose::Local,
        Purpose::Link,
        Purpose::Appraisal,
        Purpose::Enrolment,
    ];
    assert_eq!(purposes, expected);
}

#[tokio::test]
async fn what_is_said_beside_the_quote_is_what_was_described_last() {
    let broker = start(SoftTpm::default());
    broker.describe(Description {
        node_key: Sha256([9; 32]),
        event_log: Some(vec![1, 2, 3]),
        ..description()
    });
    let evidence = broker
        .local_door()
        .attest(caller("pod"), nonce(1))
        .await
        .expect("quoted");
    assert_eq!(evidence.claims.node_key, Sha256([9; 32]));
    assert_eq!(evidence.quoted.event_log.as_deref(), Some(&[1, 2, 3][..]));
    assert_eq!(evidence.quoted.ak.require_ak(), Ok(()));
}
