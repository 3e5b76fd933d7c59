//! Goal: a Result is believed of the node that shows it, for its time, from the Verifier that is
//! pinned, and never otherwise.
//!
//! ```text
//!   Attester "a" ── Evidence ──► Verifier "v" ── token ──► Relying Party, which has pinned v's key
//! ```

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use kedge_attest::testing::{Attester, challenge};
use kedge_attest::{
    AttestationResult, BootTime, Held, Ledger, LedgerError, Lifetimes, MemoryResults, PcrPolicy,
    Pin, PinnedKeys, Required, ResultError, Results, Sha256, Standing, Verified, Verifier,
    VerifierKey, limits,
};
use rustls_pki_types::UnixTime;
use serde_json::{Value, json};
use std::time::Duration;

const T: u64 = 1_800_000_000;
const HOUR: Duration = Duration::from_secs(3_600);
const HOURLY: Lifetimes = Lifetimes {
    fresh: limits::RESULT_LIFETIME,
    hard: HOUR,
};

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn verified(attester: &mut Attester) -> Verified {
    let evidence = attester.evidence(challenge(1));
    let policy = PcrPolicy::learn([&evidence.quoted.pcrs]).expect("PCRs are quoted");
    Verifier::new(attester.roots(), policy)
        .verify(
            &evidence,
            &attester.expected(challenge(1)),
            &mut Ledger::default(),
            at(T),
        )
        .expect("honest")
}

fn new_key() -> Vec<u8> {
    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .expect("the library makes keys")
        .as_ref()
        .to_vec()
}

/// A Verifier, a node, and a Relying Party that believes the one about the other.
struct Scene {
    attester: Attester,
    pkcs8: Vec<u8>,
    key: VerifierKey,
    pin: Pin,
    pinned: PinnedKeys,
}

impl Scene {
    fn new() -> Self {
        let pkcs8 = new_key();
        let (key, pin) = VerifierKey::from_pkcs8("v", &pkcs8).expect("a key");
        Self {
            attester: Attester::new("a"),
            pinned: PinnedKeys::new(std::slice::from_ref(&pin), &[]).expect("one pin"),
            pkcs8,
            key,
            pin,
        }
    }

    fn token(&mut self) -> String {
        let verified = verified(&mut self.attester);
        self.key.issue(&verified, HOURLY, at(T)).expect("signs")
    }

    fn required(&self) -> Required {
        Required {
            node: self.attester.node.clone(),
            node_key: self.attester.node_key,
            policies: Vec::new(),
            max_stale: Duration::ZERO,
        }
    }

    fn verify(&self, token: &str, seconds: u64) -> Result<AttestationResult, ResultError> {
        self.pinned.verify(token, &self.required(), at(seconds))
    }

    /// A token by the pinned key that says something else.
    fn token_with(&mut self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = claims(&self.token());
        change(&mut claims);
        let header = Header {
            kid: Some(self.pin.id().to_string()),
            ..Header::new(Algorithm::ES256)
        };
        let key = EncodingKey::from_ec_der(&self.pkcs8);
        jsonwebtoken::encode(&header, &claims, &key).expect("signs")
    }
}

fn claims(token: &str) -> Value {
    let data = jsonwebtoken::dangerous::insecure_decode::<Value>(token);
    data.expect("a token").claims
}

#[test]
fn a_result_is_believed_of_the_node_that_shows_it() {
    let mut scene = Scene::new();
    let token = scene.token();
    assert!(
        token.len() < limits::RESULT_BYTES_MAX / 2,
        "{} bytes",
        token.len()
    );
    let result = scene.verify(&token, T + 10).expect("honest");
    assert_eq!(result.node(), &scene.attester.node);
    assert_eq!(result.ak(), scene.attester.tpm.ak().name());
    assert_eq!(result.counters(), scene.attester.tpm.clock.counters);
    assert_eq!((result.verifier(), result.issued()), ("v", T));
}

#[test]
fn a_result_has_the_claims_of_eat_and_ear() {
    let claims = claims(&Scene::new().token());
    assert_eq!(claims["iat"], json!(T));
    assert_eq!(claims["exp"], json!(T + 3_600));
    assert_eq!(claims["kedge.fresh-until"], json!(T + 300));
    assert_eq!(claims["sub"], json!("spiffe://td/kedge/node/a"));
    let tpm = &claims["submods"]["tpm"];
    assert_eq!(tpm["ear.status"], json!("affirming"));
    assert_eq!(
        tpm["ear.trustworthiness-vector"]["instance-identity"],
        json!(2)
    );
    assert!(claims["ear.verifier-id"]["build"].is_string());
    assert!(claims["cnf"]["kid"].is_string());
}

#[test]
fn a_result_of_a_node_with_another_svid_key_is_refused() {
    let mut scene = Scene::new();
    let token = scene.token();
    let required = Required {
        node_key: Sha256([7; 32]),
        ..scene.required()
    };
    let refused = scene.pinned.verify(&token, &required, at(T));
    assert_eq!(refused, Err(ResultError::OtherNodeKey));
}

#[test]
fn a_result_about_another_node_is_refused() {
    let mut scene = Scene::new();
    let token = scene.token();
    let required = Required {
        node: Attester::new("b").node,
        ..scene.required()
    };
    let refused = scene.pinned.verify(&token, &required, at(T));
    assert!(matches!(refused, Err(ResultError::OtherNode { .. })));
}

#[test]
fn a_result_past_its_time_is_refused_and_says_by_how_much() {
    let mut scene = Scene::new();
    let token = scene.token();
    assert!(scene.verify(&token, T + 299).is_ok());
    let refused = scene.verify(&token, T + 301);
    assert_eq!(
        refused,
        Err(ResultError::Ended {
            ended_s: 1,
            max_stale_s: 0
        })
    );
    let refused = scene.verify(&token, T + 3_600);
    assert_eq!(refused, Err(ResultError::PastHardExpiry(0)));
}

#[test]
fn a_stale_result_is_taken_as_long_as_is_allowed_and_never_past_its_hard_expiry() {
    let mut scene = Scene::new();
    let token = scene.token();
    let mut required = scene.required();
    required.max_stale = Duration::from_secs(60);
    assert!(scene.pinned.verify(&token, &required, at(T + 359)).is_ok());
    let refused = scene.pinned.verify(&token, &required, at(T + 360));
    assert_eq!(
        refused,
        Err(ResultError::Ended {
            ended_s: 60,
            max_stale_s: 60
        })
    );
    required.max_stale = Duration::MAX;
    assert!(
        scene
            .pinned
            .verify(&token, &required, at(T + 3_599))
            .is_ok()
    );
    let refused = scene.pinned.verify(&token, &required, at(T + 3_601));
    assert_eq!(refused, Err(ResultError::PastHardExpiry(1)));
}

#[test]
fn a_clock_that_is_wrong_makes_no_result_good_again() {
    let mut scene = Scene::new();
    let token = scene.token();
    // A Relying Party that is a minute behind does not know this time yet.
    let refused = scene.verify(&token, T - 60);
    assert_eq!(refused, Err(ResultError::FromTheFuture(60)));
    let result = scene.verify(&token, T - 20).expect("within the skew");
    // Set back while it is held: it ages all the same.
    let held = Held::new(result, token, at(T - 20), BootTime(Duration::ZERO));
    let after = |seconds| BootTime(Duration::from_secs(seconds));
    assert_eq!(held.standing(after(299), Duration::ZERO), Standing::Fresh);
    assert_eq!(held.standing(after(300), Duration::ZERO), Standing::Ended);
}

#[test]
fn a_result_of_a_key_that_is_not_pinned_is_refused() {
    let mut scene = Scene::new();
    let (stranger, _) = VerifierKey::from_pkcs8("v", &new_key()).expect("a key");
    let verified = verified(&mut scene.attester);
    let token = stranger.issue(&verified, HOURLY, at(T)).expect("signs");
    assert_eq!(scene.verify(&token, T), Err(ResultError::UnknownVerifier));
    // Nor does the pinned key's id help.
    let header = Header {
        kid: Some(scene.pin.id().to_string()),
        ..Header::new(Algorithm::ES256)
    };
    let key = EncodingKey::from_ec_der(&new_key());
    let forged = jsonwebtoken::encode(&header, &claims(&token), &key).expect("signs");
    assert_eq!(scene.verify(&forged, T), Err(ResultError::Signature));
}

#[test]
fn a_token_by_another_algorithm_is_refused_whatever_its_key() {
    let mut scene = Scene::new();
    let token = scene.token();
    let header = Header {
        kid: Some(scene.pin.id().to_string()),
        ..Header::new(Algorithm::HS256)
    };
    // The public key as if it were a shared secret.
    let key = EncodingKey::from_secret(&scene.pin.point);
    let forged = jsonwebtoken::encode(&header, &claims(&token), &key).expect("signs");
    assert_eq!(scene.verify(&forged, T), Err(ResultError::Malformed));
    let (_, rest) = token.split_once('.').expect("three parts");
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{rest}");
    assert_eq!(scene.verify(&unsigned, T), Err(ResultError::Malformed));
}

#[test]
fn a_verifier_speaks_in_its_own_name_and_not_about_itself() {
    let mut scene = Scene::new();
    let token = scene.token_with(|claims| claims["iss"] = json!("w"));
    assert!(matches!(
        scene.verify(&token, T),
        Err(ResultError::OtherVerifier { .. })
    ));
    let own = scene.pin.id().to_string();
    let token = scene.token_with(|claims| claims["cnf"]["kid"] = json!(own));
    assert_eq!(scene.verify(&token, T), Err(ResultError::OwnVerifier));
    let node = scene.attester.node.to_string();
    let (key, pin) = VerifierKey::from_pkcs8(&node, &new_key()).expect("a key");
    scene.pinned = PinnedKeys::new(&[pin], &[]).expect("one pin");
    let token = key
        .issue(&verified(&mut scene.attester), HOURLY, at(T))
        .expect("signs");
    assert_eq!(scene.verify(&token, T), Err(ResultError::OwnVerifier));
}

#[test]
fn a_result_that_is_good_for_too_long_or_affirms_nothing_is_refused() {
    let mut scene = Scene::new();
    let token = scene.token_with(|claims| claims["exp"] = json!(T + 2 * 86_400));
    assert_eq!(scene.verify(&token, T), Err(ResultError::TooLong));
    let token = scene.token_with(|claims| claims["kedge.fresh-until"] = json!(T + 7_200));
    assert_eq!(scene.verify(&token, T), Err(ResultError::TooLong));
    let token = scene.token_with(|claims| {
        claims["submods"]["tpm"]["ear.status"] = json!("contraindicated");
    });
    assert_eq!(scene.verify(&token, T), Err(ResultError::NotAffirming));
    let token = scene.token_with(|claims| claims["eat_profile"] = json!("tag:else"));
    assert_eq!(scene.verify(&token, T), Err(ResultError::Malformed));
    let long = "x".repeat(limits::RESULT_BYTES_MAX + 1);
    assert_eq!(
        scene.verify(&long, T),
        Err(ResultError::TooLarge(long.len()))
    );
    assert_eq!(scene.verify("x", T), Err(ResultError::Malformed));
}

#[test]
fn a_result_by_another_policy_than_those_required_is_refused() {
    let mut scene = Scene::new();
    let token = scene.token();
    let policy = scene.verify(&token, T).expect("honest").policy();
    let with = |policies| Required {
        policies,
        ..scene.required()
    };
    let both = with(vec![Sha256([1; 32]), policy]);
    assert!(scene.pinned.verify(&token, &both, at(T)).is_ok());
    let other = with(vec![Sha256([1; 32])]);
    let refused = scene.pinned.verify(&token, &other, at(T));
    assert_eq!(refused, Err(ResultError::OtherPolicy(policy)));
}

#[test]
fn a_result_from_before_a_reboot_is_refused_once_a_later_one_is_known() {
    let mut scene = Scene::new();
    let mut results = MemoryResults::default();
    let before = scene.token();
    scene.attester.tpm.clock.counters.reset += 1;
    let after = scene.token();
    let hold = |token: &str| {
        let result = scene.verify(token, T).expect("honest");
        Held::new(result, token.into(), at(T), BootTime(Duration::ZERO))
    };
    assert!(results.keep(hold(&before)).is_ok());
    assert!(results.keep(hold(&after)).is_ok());
    let refused = results.keep(hold(&before));
    assert!(matches!(refused, Err(LedgerError::RolledBack { .. })));
}

#[test]
fn the_key_of_a_ca_or_of_this_node_is_not_pinned() {
    let scene = Scene::new();
    let refused = PinnedKeys::new(std::slice::from_ref(&scene.pin), &[scene.pin.id()]);
    assert_eq!(
        refused.err(),
        Some(ResultError::PinnedForbidden("v".into()))
    );
    assert_eq!(PinnedKeys::new(&[], &[]).err(), Some(ResultError::Pins(16)));
    let many = vec![scene.pin; limits::PINNED_KEYS_MAX + 1];
    assert_eq!(
        PinnedKeys::new(&many, &[]).err(),
        Some(ResultError::Pins(16))
    );
    assert_eq!(
        VerifierKey::from_pkcs8("v", &[1, 2]).err(),
        Some(ResultError::NotAKey)
    );
}

#[test]
fn a_verifier_may_give_less_than_five_minutes_and_never_more() {
    let mut scene = Scene::new();
    let verified = verified(&mut scene.attester);
    let fresh_for = |seconds| {
        let lifetimes = Lifetimes {
            fresh: Duration::from_secs(seconds),
            hard: Duration::ZERO,
        };
        let token = scene.key.issue(&verified, lifetimes, at(T));
        let claims = claims(&token.expect("signs"));
        let of = |name: &str| claims[name].as_u64().expect("a number") - T;
        (of("kedge.fresh-until"), of("exp"))
    };
    assert_eq!(fresh_for(10), (10, 10));
    assert_eq!(fresh_for(86_400), (300, 300));
}
