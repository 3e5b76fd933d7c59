//! A Verifier, a node that it affirms, and tokens about it; and a daemon's own attestation with a TPM
//! in software.

use super::{Attestation, Counters, Door, DoorError, Judge, Own, RawSettings, Settings, Shared};
use crate::events::Events;
use kedge_api::AttestationMode;
use kedge_attest::testing::{Attester, challenge};
use kedge_attest::{
    AttestationResult, Caller, Evidence, Held, Ledger, Lifetimes, NodeKey, Nonce, PcrPolicy, Pin,
    PinnedKeys, Required, Sha256, Tpm, Verified, Verifier, VerifierKey,
};
use kedge_model::{SpiffeId, TrustDomain};
use rustls_pki_types::UnixTime;
use std::time::Duration;

pub struct Scene {
    pub attester: Attester,
    pub pin: Pin,
    key: VerifierKey,
}

impl Scene {
    pub fn new() -> Self {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &aws_lc_rs::rand::SystemRandom::new(),
        );
        let pkcs8 = pkcs8.expect("the library makes keys");
        let (key, pin) = VerifierKey::from_pkcs8("v", pkcs8.as_ref()).expect("a key");
        Self {
            attester: Attester::new("a"),
            pin,
            key,
        }
    }

    pub fn token(&mut self, fresh_s: u64) -> String {
        let verified = verified(&mut self.attester);
        let lifetimes = Lifetimes {
            fresh: Duration::from_secs(fresh_s),
            hard: Duration::from_secs(3_600),
        };
        let token = self.key.issue(&verified, lifetimes, UnixTime::now());
        token.expect("signs")
    }

    /// As it was received at this time of the boot-time clock.
    pub fn held(&mut self, fresh_s: u64) -> Held {
        let token = self.token(fresh_s);
        let now = UnixTime::now();
        Held::new(self.result(&token), token, now, super::boot_time())
    }

    pub fn node_key(&self) -> NodeKey {
        self.attester.node_key
    }

    fn result(&self, token: &str) -> AttestationResult {
        let required = Required {
            node: self.attester.node.clone(),
            node_key: self.attester.node_key,
            policies: Vec::new(),
            max_stale: Duration::MAX,
        };
        let pinned = PinnedKeys::new(std::slice::from_ref(&self.pin), &[]).expect("one pin");
        let result = pinned.verify(token, &required, UnixTime::now());
        result.expect("just issued")
    }
}

fn verified(attester: &mut Attester) -> Verified {
    let evidence = attester.evidence(challenge(1));
    let policy = PcrPolicy::learn([&evidence.quoted.pcrs]).expect("PCRs are quoted");
    let verifier = Verifier::new(attester.roots(), policy);
    let expected = attester.expected(challenge(1));
    verifier
        .verify(
            &evidence,
            &expected,
            &mut Ledger::default(),
            UnixTime::now(),
        )
        .expect("honest")
}

/// Of a node that has this TPM, and no Verifier.
pub fn attestation(tpm: impl Tpm + 'static) -> Attestation {
    let settings = Settings {
        mode: AttestationMode::Optional,
        ..RawSettings::default().check().expect("off is allowed")
    };
    let key = Sha256([1; 32]);
    let trust_domain = TrustDomain::parse("td").expect("a name");
    Attestation(std::sync::Arc::new(Shared {
        node: SpiffeId::parse("spiffe://td/kedge/node/a").expect("a node's"),
        events: Events::new(trust_domain).0,
        own: Own::new(key),
        judge: Judge::new(&settings, Vec::new()).expect("no file"),
        door: Door::with(&settings, key, tpm),
        counters: Counters::default(),
        settings,
    }))
}

impl Attestation {
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    /// What the daemon asks for itself.
    pub async fn appraisal_of(&self, asked: (Caller, Nonce)) -> Result<Evidence, DoorError> {
        let (settings, key) = (&self.0.settings, self.0.own.key());
        self.0.door.appraisal(settings, key, asked).await
    }
}
