//! With the machine's own TPM, if it has one, as well as with swtpm.

use crate::machine::Machine;
use crate::{Authority, NODE_KEY, attest, expected, node, now};
use kedge_attest::testing::Slowed;
use kedge_attest::{
    Caller, Challenge, Expected, Ledger, Nonce, PcrPolicy, PcrSelection, Rejection, Sha256, Tpm,
    Verifier,
};
use kedge_tpm::{AK_HANDLE, Broker, Description, Device, DeviceConfig, EkKind};
use tss_esapi::handles::{PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::resource_handles::Provision;
use tss_esapi::interface_types::session_handles::AuthSession;

#[test]
fn an_ak_whose_place_was_cleared_is_made_again_as_the_same_key() {
    let machine = machine_or_skip!();
    let ak = machine.open().expect("opens").ak_public().expect("made");
    evict(&machine, AK_HANDLE);
    let again = machine.open().expect("opens").ak_public().expect("made");
    assert_eq!(again, ak);
    let elsewhere = DeviceConfig {
        ak_handle: AK_HANDLE + 1,
        ..machine.config()
    };
    let other = Device::open(&elsewhere).expect("opens").ak_public();
    assert_eq!(other.expect("made"), ak);
}

#[test]
fn a_quote_of_an_enrolled_tpm_is_believed_with_either_ek() {
    let machine = machine_or_skip!();
    let authority = Authority::new();
    for ek in [EkKind::Rsa2048, EkKind::P384] {
        let config = DeviceConfig {
            ek,
            ..machine.config()
        };
        let mut device = Device::open(&config).expect("opens");
        let chain = [authority.enrol(&machine, &mut device)];
        let evidence = attest(&mut device, &chain, 1);
        let observed =
            Verifier::observe(&authority.roots(), &evidence, &expected(1), now()).expect("honest");
        let policy = PcrPolicy::learn([&observed]).expect("PCRs are quoted");
        let verifier = Verifier::new(authority.roots(), policy);
        let mut ledger = Ledger::default();
        let verified = verifier.verify(&evidence, &expected(1), &mut ledger, now());
        assert_eq!(verified.expect("honest").node(), &node(), "{ek:?}");
        let refused = verifier.verify(&evidence, &expected(2), &mut ledger, now());
        assert_eq!(refused, Err(Rejection::OtherNonce));
    }
}

#[test]
fn an_extended_pcr_is_refused_by_its_number_until_it_is_learned() {
    let machine = machine_or_skip!();
    let authority = Authority::new();
    let mut device = machine.open().expect("opens");
    let chain = [authority.enrol(&machine, &mut device)];
    let before = attest(&mut device, &chain, 1);
    drop(device);
    machine.extend(16, [7; 32]);
    let mut device = machine.open().expect("opens");
    let after = attest(&mut device, &chain, 2);
    let policy = PcrPolicy::learn([&before.quoted.pcrs]).expect("PCRs are quoted");
    let verifier = Verifier::new(authority.roots(), policy);
    let mut ledger = Ledger::default();
    assert!(
        verifier
            .verify(&before, &expected(1), &mut ledger, now())
            .is_ok()
    );
    let refused = verifier.verify(&after, &expected(2), &mut ledger, now());
    let value = Sha256::of(&[&[0; 32], &[7; 32]]);
    assert_eq!(
        refused,
        Err(Rejection::Pcr {
            index: 16,
            found: value
        })
    );
    let both = [&before.quoted.pcrs, &after.quoted.pcrs];
    let learned = PcrPolicy::learn(both).expect("PCRs are quoted");
    let verifier = Verifier::new(authority.roots(), learned);
    assert!(
        verifier
            .verify(&after, &expected(2), &mut ledger, now())
            .is_ok()
    );
}

#[tokio::test]
async fn a_thousand_callers_at_once_share_the_quotes_of_a_slow_tpm_and_are_all_believed() {
    let machine = machine_or_skip!();
    let authority = Authority::new();
    let mut device = machine.open().expect("opens");
    let chain = vec![authority.enrol(&machine, &mut device)];
    let description = Description {
        node_key: NODE_KEY,
        pcrs: PcrSelection::of(&[0, 7]),
        ak_chain: chain,
        event_log: None,
    };
    let broker = Broker::start(Slowed(device), description).expect("starts");
    let tasks: Vec<_> = (0..1_000)
        .map(|number| {
            let door = broker.local_door();
            let nonce = Nonce::new([&u64::to_be_bytes(number)[..], &[0; 8]].concat());
            let caller = Caller::new(format!("pod-{number}"));
            let asked = (caller.expect("short"), nonce.expect("16 bytes"));
            tokio::spawn(async move {
                let (caller, nonce) = asked.clone();
                (
                    asked,
                    door.attest(caller, nonce).await.expect("there is room"),
                )
            })
        })
        .collect();
    let mut ledger = Ledger::default();
    let mut verifier = None;
    for task in tasks {
        let ((caller, nonce), evidence) = task.await.expect("no panic");
        let verifier = verifier.get_or_insert_with(|| {
            let policy = PcrPolicy::learn([&evidence.quoted.pcrs]).expect("PCRs are quoted");
            Verifier::new(authority.roots(), policy)
        });
        let expected = Expected {
            node: node(),
            claims: Challenge::local(caller, nonce).claims(NODE_KEY),
        };
        let verified = verifier.verify(&evidence, &expected, &mut ledger, now());
        assert!(verified.is_ok(), "{verified:?}");
    }
    let counters = broker.counters();
    assert_eq!(counters.challenges, 1_000);
    assert!(counters.quotes <= 10, "{counters:?}");
}

fn evict(machine: &Machine, handle: u32) {
    let handle = PersistentTpmHandle::new(handle).expect("persistent");
    let mut context = machine.context();
    let object = context
        .tr_from_tpm_public(TpmHandle::Persistent(handle))
        .expect("there");
    context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.evict_control(Provision::Owner, object, Persistent::Persistent(handle))
        })
        .expect("evicted");
}
