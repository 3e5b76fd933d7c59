//! Gets this node's Result and renews it: early, one attempt at a time, and after a failure not all
//! nodes at the same moment ([`Refresher`]).

use super::Attestation;
use super::boot_time;
use super::client::{AppraisalError, appraise};
use crate::events::chain;
use crate::limits::{ATTESTATION_TICK, FILES_POLL};
use kedge_api::EventKind;
use kedge_attest::limits::ATTEMPT_TIMEOUT;
use kedge_attest::{Attempt, NodeKey, Refresher, Step};
use rand::random;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;
use tokio::time::{sleep, timeout};

/// Until the daemon ends.
pub(super) async fn run(attestation: Attestation) {
    let shared = &attestation.0;
    tokio::spawn(follow_files(attestation.clone()));
    let tell = |failure: &str| {
        shared
            .events
            .attestation_missing(shared.settings.mode, failure);
        shared.own.fail(format!("no TPM: {failure}"));
    };
    shared
        .door
        .open(&shared.settings, shared.own.key(), tell)
        .await;
    let mut keys = shared.own.keys();
    let mut refresher = Refresher::new(shared.settings.refresh, boot_time());
    let mut enrolled = modified(shared.settings.ak_certificate.as_deref());
    loop {
        match refresher.next(boot_time(), random()) {
            Step::Ask(attempt) => {
                let key = *keys.borrow_and_update();
                attempt_once(&attestation, &mut refresher, attempt, key).await;
            }
            Step::WaitUntil(due) => {
                let wait = due.since(boot_time()).min(ATTESTATION_TICK);
                tokio::select! {
                    () = sleep(wait) => {}
                    Ok(()) = keys.changed() => refresher.handle_change(boot_time()),
                }
                let now = modified(shared.settings.ak_certificate.as_deref());
                if now != enrolled {
                    enrolled = now;
                    refresher.handle_remedy(boot_time());
                }
            }
        }
    }
}

async fn attempt_once(
    attestation: &Attestation,
    refresher: &mut Refresher,
    attempt: Attempt,
    key: NodeKey,
) {
    let shared = &attestation.0;
    shared.counters.attempts.fetch_add(1, Relaxed);
    let outcome = timeout(ATTEMPT_TIMEOUT, appraise(attestation, key)).await;
    match outcome.unwrap_or(Err(AppraisalError::TimedOut)) {
        Ok(held) => {
            refresher.handle_result(attempt, &held, boot_time(), random());
            let result = held.result();
            let is_first = shared.counters.results.fetch_add(1, Relaxed) == 0;
            if is_first || shared.own.state().why().is_some() {
                shared.events.attested(result.verifier(), result.policy());
            }
            shared.own.keep(held);
        }
        Err(error) => {
            refresher.handle_failure(attempt, boot_time(), random());
            shared.counters.failures.fetch_add(1, Relaxed);
            let why = chain(&error);
            if shared.own.fail(why.clone()) {
                shared.events.attestation_refused(&why, error.remedy());
            }
        }
    }
}

/// Whom we believe is read again when its file changes.
async fn follow_files(attestation: Attestation) {
    let shared = &attestation.0;
    let mut complaint = None;
    loop {
        sleep(FILES_POLL).await;
        let said = match shared.judge.reload() {
            Ok(said) => said,
            Err(error) => {
                let error = chain(&error);
                if complaint.as_ref() != Some(&error) {
                    shared.events.rejected(EventKind::VerifiersRejected, &error);
                }
                complaint = Some(error);
                continue;
            }
        };
        complaint = None;
        if let Some(said) = said {
            shared.events.say(EventKind::VerifiersChanged, said);
        }
    }
}

fn modified(path: Option<&Path>) -> Option<SystemTime> {
    std::fs::metadata(path?).ok()?.modified().ok()
}
