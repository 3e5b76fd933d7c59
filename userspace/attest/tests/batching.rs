//! Goal: whoever waits is answered by one quote, nobody waits for a third, and no caller starves
//! another.

use kedge_attest::testing::{Attester, challenge, challenge_of};
use kedge_attest::{BatchError, Batcher, Caller, Challenge, LinkExporter, Nonce, TpmError, limits};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

fn link_challenge(number: u64) -> Challenge {
    let caller = Caller::new("spiffe://td/kedge/node/a").expect("short");
    let nonce = Nonce::new([&number.to_be_bytes()[..], &[0; 8]].concat()).expect("16 bytes");
    Challenge::link(caller, LinkExporter::for_tests([1; 32]), nonce)
}

#[test]
fn a_thousand_callers_are_answered_by_one_quote() {
    let mut attester = Attester::new("a");
    let mut batcher = Batcher::new(attester.node_key);
    for caller in 0..1_000_u64 {
        let challenge = challenge_of(&format!("pod-{caller}"), caller);
        batcher
            .submit(challenge, caller, NOW)
            .expect("there is room");
    }
    let mut batch = batcher.begin(|_| false).expect("many wait");
    let quoted = attester.quoted(&batch.qualifying_data().0);
    let answers: Vec<_> = batcher.complete(batch, Ok(quoted)).collect();
    for (caller, answer) in &answers {
        let claims = &answer.as_ref().expect("quoted").claims;
        assert_eq!(claims.caller.as_str(), format!("pod-{caller}"));
    }
    let counters = batcher.counters();
    assert_eq!(
        (counters.quotes, counters.challenges, counters.largest),
        (1, 1_000, 1_000)
    );
    assert_eq!((attester.tpm.quotes, answers.len()), (1, 1_000));
}

#[test]
fn one_quote_is_in_flight_and_takes_along_all_who_wait() {
    let mut attester = Attester::new("a");
    let mut batcher = Batcher::new(attester.node_key);
    batcher.submit(challenge(0), 0, NOW).expect("room");
    let mut first = batcher.begin(|_| false).expect("one waits");
    for number in 1..10 {
        batcher
            .submit(challenge(number), number, NOW)
            .expect("room");
        assert!(batcher.begin(|_| false).is_none(), "one is in flight");
    }
    let quoted = attester.quoted(&first.qualifying_data().0);
    assert_eq!(batcher.complete(first, Ok(quoted)).count(), 1);
    // Whoever came during the first quote is in the second, and waits for no third.
    let mut second = batcher.begin(|_| false).expect("nine wait");
    assert_eq!((second.len(), batcher.counters().waiting), (9, 0));
    let quoted = attester.quoted(&second.qualifying_data().0);
    assert_eq!(batcher.complete(second, Ok(quoted)).count(), 9);
    assert!(batcher.begin(|_| false).is_none(), "nobody waits");
}

#[test]
fn an_error_of_the_tpm_is_told_to_all_and_the_next_quote_is_tried() {
    let mut attester = Attester::new("a");
    let mut batcher = Batcher::new(attester.node_key);
    for number in 0..3 {
        batcher
            .submit(challenge(number), number, NOW)
            .expect("room");
    }
    let batch = batcher.begin(|_| false).expect("three wait");
    let lockout = TpmError::Lockout("quote");
    for (_, answer) in batcher.complete(batch, Err(lockout.clone())) {
        assert_eq!(answer, Err(lockout.clone()));
    }
    assert_eq!(batcher.counters().errors, 1);
    batcher.submit(challenge(4), 4, NOW).expect("room");
    let mut batch = batcher.begin(|_| false).expect("one waits");
    let quoted = attester.quoted(&batch.qualifying_data().0);
    assert!(
        batcher
            .complete(batch, Ok(quoted))
            .all(|(_, answer)| answer.is_ok())
    );
}

#[test]
fn a_caller_that_floods_is_refused_and_the_others_are_not() {
    let mut batcher = Batcher::new(Attester::new("a").node_key);
    let flood = (0..10_000)
        .take_while(|n| batcher.submit(challenge_of("flood", *n), (), NOW).is_ok())
        .count();
    assert_eq!(flood, limits::CALLER_BURST as usize);
    let refused = batcher.submit(challenge_of("flood", 0), (), NOW);
    assert_eq!(
        refused,
        Err((BatchError::TooFast(limits::CALLER_PER_SECOND), ()))
    );
    assert!(batcher.submit(challenge_of("other", 0), (), NOW).is_ok());
    assert_eq!(batcher.counters().refused, 2);
}

#[test]
fn a_tpm_that_hangs_fills_a_bounded_room_and_leaves_the_daemon_its_own() {
    let mut batcher = Batcher::new(Attester::new("a").node_key);
    batcher.submit(challenge(0), (), NOW).expect("room");
    // It is never completed.
    let _hanging = batcher.begin(|()| false).expect("one waits");
    let admitted = (0..20_000)
        .filter(|n| {
            batcher
                .submit(challenge_of(&format!("pod-{}", n / 10), *n), (), NOW)
                .is_ok()
        })
        .count();
    assert!(admitted <= limits::LOCAL_WAITING_MAX, "{admitted}");
    let refused = batcher.submit(challenge_of("pod-late", 0), (), NOW);
    assert_eq!(
        refused,
        Err((BatchError::Full(limits::LOCAL_WAITING_MAX), ()))
    );
    let own = |make: fn(Caller, Nonce) -> Challenge| {
        let nonce = Nonce::new([0; 16]).expect("16 bytes");
        make(Caller::new("pod-late").expect("short"), nonce)
    };
    for challenge in [own(Challenge::appraisal), own(Challenge::enrolment)] {
        assert!(batcher.submit(challenge, (), NOW).is_ok());
    }
    for number in 2..limits::OWN_WAITING_MAX as u64 {
        assert!(
            batcher.submit(link_challenge(number), (), NOW).is_ok(),
            "link {number}"
        );
    }
    let refused = batcher.submit(link_challenge(0), (), NOW);
    assert_eq!(
        refused,
        Err((BatchError::Full(limits::OWN_WAITING_MAX), ()))
    );
    assert_eq!(batcher.counters().waiting, limits::LEAVES_MAX);
}

#[test]
fn callers_that_left_are_in_no_quote() {
    let mut batcher = Batcher::new(Attester::new("a").node_key);
    for number in 0..4 {
        batcher
            .submit(challenge(number), number, NOW)
            .expect("room");
    }
    let batch = batcher.begin(|number| number % 2 == 0).expect("two wait");
    assert_eq!(batch.len(), 2);
    let mut all_left = Batcher::new(Attester::new("a").node_key);
    all_left.submit(challenge(0), (), NOW).expect("room");
    assert!(all_left.begin(|()| true).is_none());
    all_left.submit(challenge(0), (), NOW).expect("room");
    assert!(all_left.begin(|()| false).is_some(), "nothing is in flight");
}

#[test]
fn who_waits_while_the_svid_is_renewed_gets_evidence_about_the_new_key() {
    let mut attester = Attester::new("a");
    let mut batcher = Batcher::new(attester.node_key);
    batcher.submit(challenge(0), (), NOW).expect("room");
    let renewed = kedge_attest::Sha256([9; 32]);
    batcher.use_node_key(renewed);
    let mut batch = batcher.begin(|()| false).expect("one waits");
    let quoted = attester.quoted(&batch.qualifying_data().0);
    let answers: Vec<_> = batcher.complete(batch, Ok(quoted)).collect();
    let evidence = answers[0].1.as_ref().expect("quoted");
    assert_eq!(evidence.claims.node_key, renewed);
}

#[test]
fn who_waits_when_nobody_will_answer_any_more_is_handed_back() {
    let mut batcher = Batcher::new(Attester::new("a").node_key);
    for number in 0..3 {
        batcher
            .submit(challenge(number), number, NOW)
            .expect("room");
    }
    assert_eq!(batcher.abandon(), [0, 1, 2]);
    assert_eq!(batcher.counters().waiting, 0);
}
