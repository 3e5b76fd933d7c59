//! Goal: callers of one TPM share its quotes, and none gets more than his share or another's name.
//!
//! ```text
//!   1,000 clients ── gRPC ──► the socket ── Local ──► Broker ──► a TPM in software
//! ```
//! The kernel names one process for all of them, which this is: so each test says itself who each
//! connection's caller is. How kedged tells that stands in `callers`, and is tested there. Where it
//! matters the TPM takes as long as one of hardware.

use super::*;
use crate::attestation::Attestation;
use crate::attestation::testing::attestation;
use kedge_attest::testing::{Slowed, SoftTpm};
use kedge_attest::{Evidence, Purpose, TpmError, limits};
use kedge_attest_api::AttestationClient;
use kedge_attest_api::tonic::Code;
use kedge_attest_api::tonic::transport::Channel;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A socket that is served.
struct Served {
    folder: TempDir,
    attestation: Attestation,
}

impl Served {
    /// `name` says whose the next connection is, by its number.
    fn new(
        attestation: Attestation,
        name: impl Fn(u64) -> Result<Caller, Unidentified> + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = AttestSocket::bind(folder.path()).expect("bind");
        let listener = socket.0.publish().expect("rename");
        let (local, events) = (attestation.local(), attestation.events().clone());
        let next = std::sync::atomic::AtomicU64::new(0);
        let identify =
            move |_: &UnixStream| name(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        tokio::spawn(serve(listener, local, events, identify));
        Self {
            folder,
            attestation,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(kedge_attest_api::SOCKET)
    }

    async fn client(&self) -> AttestationClient<Channel> {
        kedge_attest_api::connect(&self.path())
            .await
            .expect("it listens")
    }

    fn count(&self, name: &str) -> u64 {
        self.attestation.counters()[&format!("attestation.{name}")]
    }
}

fn caller(name: impl Into<String>) -> Caller {
    Caller::new(name).expect("short")
}

fn ask(number: u64) -> AttestRequest {
    let nonce = [[0; 8], number.to_be_bytes()].concat();
    AttestRequest { nonce }
}

#[tokio::test]
async fn a_thousand_callers_and_two_hundred_of_the_daemons_own_share_a_few_quotes() {
    const CALLERS: u64 = 1_000;
    const OWN: u64 = 200;
    let served = Served::new(attestation(Slowed::<SoftTpm>::default()), |number| {
        Ok(caller(format!("pod {number}")))
    });
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let path = served.path();
        callers.spawn(async move {
            let mut client = kedge_attest_api::connect(&path).await.expect("listens");
            let asked = Instant::now();
            let answer = client.attest(ask(number)).await.expect("an answer");
            (answer.into_inner(), asked.elapsed())
        });
    }
    let mut own = JoinSet::new();
    for number in 0..OWN {
        let attestation = served.attestation.clone();
        own.spawn(async move {
            let nonce = Nonce::new(ask(number).nonce).expect("16 bytes");
            attestation.appraisal_of((caller("verifier"), nonce)).await
        });
    }
    let (mut names, mut took) = (HashSet::new(), Vec::new());
    while let Some(answer) = callers.join_next().await {
        let (answer, after) = answer.expect("no panic");
        let AttestResponse {
            evidence,
            caller: name,
        } = answer;
        took.push(after);
        let evidence = Evidence::parse(&evidence).expect("Evidence");
        assert_eq!(evidence.claims.purpose, Purpose::Local);
        assert_eq!(evidence.claims.caller.as_str(), name);
        assert!(names.insert(name), "a name of one is said to another");
    }
    while let Some(evidence) = own.join_next().await {
        evidence
            .expect("no panic")
            .expect("own challenges have room");
    }
    let (challenges, quotes) = (served.count("challenges"), served.count("quotes"));
    took.sort();
    println!(
        "{quotes} quotes for {challenges} challenges; half of the callers waited for {:?}, 99 of 100 for {:?}",
        took[took.len() / 2],
        took[took.len() * 99 / 100]
    );
    assert_eq!(challenges, CALLERS + OWN);
    assert!(quotes * 100 <= challenges, "{quotes} quotes");
    assert_eq!(served.count("local_answers"), CALLERS);
}

#[tokio::test]
async fn one_who_floods_is_told_so_and_his_neighbour_is_answered() {
    let names = ["flood", "calm"];
    let served = Served::new(attestation(SoftTpm::default()), move |number| {
        Ok(caller(names[usize::try_from(number).expect("two")]))
    });
    let mut flood = served.client().await;
    let mut calm = served.client().await;
    let mut limited = 0;
    for number in 0..4 * u64::from(limits::CALLER_BURST) {
        match flood.attest(ask(number)).await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(status.message().contains("too fast"), "{status}");
                limited += 1;
            }
        }
    }
    assert!(limited > 0, "nothing limits it");
    assert_eq!(served.count("local_limited"), limited);
    calm.attest(ask(0)).await.expect("has a share of its own");
}

#[tokio::test]
async fn one_who_opens_connections_and_says_nothing_has_as_many_as_his_share() {
    let share = ATTEST_CONNECTIONS_PER_CALLER as u64;
    let served = Served::new(attestation(SoftTpm::default()), move |number| {
        Ok(caller(if number <= share { "silent" } else { "calm" }))
    });
    let mut silent = Vec::new();
    for _ in 0..share {
        silent.push(UnixStream::connect(served.path()).await.expect("connect"));
    }
    let beyond = UnixStream::connect(served.path()).await.expect("connect");
    beyond.readable().await.expect("closed at once");
    assert_eq!(beyond.try_read(&mut [0]).expect("an end"), 0);
    assert_eq!(served.count("local_closed"), 1);
    let mut calm = served.client().await;
    calm.attest(ask(1)).await.expect("has a share of its own");
}

#[tokio::test]
async fn who_cannot_be_told_from_others_gets_no_answer_and_the_reason() {
    let served = Served::new(attestation(SoftTpm::default()), |_| {
        Err(Unidentified::NoWorkload("/pods/new".to_owned()))
    });
    let mut nobody = served.client().await;
    let denied = nobody.attest(ask(1)).await.expect_err("nobody");
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert!(denied.message().contains("/pods/new"), "{denied}");
    let denied = nobody.get_result(GetResultRequest {}).await;
    assert_eq!(denied.expect_err("nobody").code(), Code::PermissionDenied);
    assert_eq!(served.count("local_unidentified"), 1);
    assert_eq!(served.count("challenges"), 0);
}

#[tokio::test]
async fn what_cannot_be_answered_says_why() {
    let mut tpm = SoftTpm::default();
    tpm.fault = Some(TpmError::Lockout("quote"));
    let served = Served::new(attestation(tpm), |_| Ok(caller("pod")));
    let mut client = served.client().await;
    for length in [0, 15, 65] {
        let nonce = vec![0; length];
        let refused = client.attest(AttestRequest { nonce }).await;
        let refused = refused.expect_err("no nonce");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("16 to 64"), "{refused}");
    }
    let locked = client.attest(ask(1)).await.expect_err("locked out");
    assert_eq!(locked.code(), Code::Unavailable);
    assert!(locked.message().contains("locked out"), "{locked}");
    let none = client.get_result(GetResultRequest {}).await;
    let none = none.expect_err("no Result yet");
    assert_eq!(none.code(), Code::Unavailable);
    assert!(none.message().contains("has not answered yet"), "{none}");
}
