//! Whom this node believes, and what it makes of what peers show.
//!
//! ```toml
//! policies = ["<digest>"]      # Results by other policies are not taken; any, without this line
//! revoked_aks = ["<name>"]     # AKs that are not believed any more
//!
//! [[verifier]]                 # `kedge-verifier --pin` prints it
//! name = "verifier-1"
//! key = "04…"
//! ```

use super::Settings;
use super::boot_time;
use super::client::hex;
use crate::limits::{RESULTS_AT_ONCE, REVOKED_AKS, VERIFIERS_BYTES};
use kedge_api::AttestationMode;
use kedge_attest::{
    AkName, AttestationResult, Held, Ledger, LedgerError, NodeKey, Pin, PinnedKeys, Required,
    ResultError, Sha256, Standing,
};
use kedge_identity::PeerIdentity;
use kedge_link::wire::Shown;
use kedge_model::{Refusal, SpiffeId};
use rustls_pki_types::UnixTime;
use serde::Deserialize;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why a peer is not taken for attested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disbelief {
    #[error("it shows no Attestation Result: {0}")]
    Nothing(String),
    #[error(transparent)]
    Result(#[from] ResultError),
    #[error(transparent)]
    Counters(#[from] LedgerError),
    #[error("AK {0}, its Verifier or its policy is not believed on this node any more")]
    Revoked(AkName),
    #[error("its Attestation Result has ended, and it shows no newer one{0}")]
    Ended(String),
    #[error("this node believes no Verifier")]
    Nobody,
    #[error("it shows Results faster than one a second, after {RESULTS_AT_ONCE} at once")]
    TooOften,
}

impl Disbelief {
    /// Short, stable name: a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Nothing(_) => Refusal::PeerUnattested.label(),
            Self::Result(error) => error.label(),
            Self::Counters(error) => error.label(),
            Self::Revoked(_) => Refusal::AttestationRevoked.label(),
            Self::Ended(_) => Refusal::AttestationEnded.label(),
            Self::Nobody => "verifier-keys",
            Self::TooOften => "too-much-at-once",
        }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Nothing(_) | Self::Ended(_) => self.refusal().remedy(),
            Self::Result(error) => error.remedy(),
            Self::Counters(error) => error.remedy(),
            Self::Revoked(_) => Refusal::AttestationRevoked.remedy(),
            Self::Nobody => "correct the file that `attestation.verifiers` names",
            Self::TooOften => "none on this node: the peer is faulty, or means harm",
        }
    }

    /// With what the peer has said of it.
    #[must_use]
    pub fn because(self, why: Option<String>) -> Self {
        match (self, why) {
            (Self::Ended(_), Some(why)) => Self::Ended(format!(": {why}")),
            (other, _) => other,
        }
    }

    /// As the peer and flows are told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Nothing(_) => Refusal::PeerUnattested,
            Self::Ended(_) => Refusal::AttestationEnded,
            Self::Revoked(_) => Refusal::AttestationRevoked,
            Self::Result(_) | Self::Counters(_) | Self::Nobody | Self::TooOften => {
                Refusal::PeerAttestationRefused
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum VerifiersError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("verifiers: more than {VERIFIERS_BYTES} bytes")]
    TooLarge,
    #[error("verifiers")]
    Toml(#[source] Box<toml::de::Error>),
    #[error("verifiers: {0:?} is not 64 hexadecimal digits (SHA-256)")]
    Digest(String),
    #[error("verifiers: more than {REVOKED_AKS} AKs are revoked")]
    TooManyRevoked,
    #[error("verifiers: the key of {0} is not 130 hexadecimal digits (`kedge-verifier --pin`)")]
    Key(String),
    #[error("verifiers: {0}; {remedy}", remedy = .0.remedy())]
    Pins(#[from] ResultError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    policies: Vec<String>,
    #[serde(default)]
    revoked_aks: Vec<String>,
    verifier: Vec<RawPin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPin {
    name: String,
    key: String,
}

/// What the file says.
struct Believed {
    pins: Vec<Pin>,
    policies: Vec<Sha256>,
    revoked: HashSet<AkName>,
}

/// The file and what follows from it.
pub struct Judge {
    path: Option<PathBuf>,
    max_stale: Duration,
    state: Mutex<State>,
}

struct State {
    text: String,
    forbidden: Vec<Sha256>,
    believed: Believed,
    /// None of the pins may be used: nobody is believed.
    keys: Option<PinnedKeys>,
    ledger: Ledger,
    generation: u64,
}

impl Judge {
    /// # Errors
    /// When attestation is on and its file cannot be used.
    pub fn new(settings: &Settings, forbidden: Vec<Sha256>) -> Result<Self, VerifiersError> {
        let is_on = settings.mode != AttestationMode::Off;
        let path = settings.verifiers.clone().filter(|_| is_on);
        let mut state = State {
            text: String::new(),
            forbidden,
            believed: Believed {
                pins: Vec::new(),
                policies: Vec::new(),
                revoked: HashSet::new(),
            },
            keys: None,
            ledger: Ledger::default(),
            generation: 0,
        };
        if let Some(path) = &path {
            state.take(read(path)?)?;
        }
        Ok(Self {
            path,
            max_stale: settings.max_stale,
            state: Mutex::new(state),
        })
    }

    /// Takes the file as it is now; `Some` says what is new. One that cannot be used leaves the last
    /// good one in force, and is complained about once.
    ///
    /// # Errors
    /// When it has changed and cannot be used.
    pub fn reload(&self) -> Result<Option<String>, VerifiersError> {
        let Some(path) = &self.path else {
            return Ok(None);
        };
        let text = read(path)?;
        let mut state = self.state();
        if text == state.text {
            return Ok(None);
        }
        state.take(text)?;
        let Believed {
            pins,
            policies,
            revoked,
        } = &state.believed;
        Ok(Some(format!(
            "verifiers {}, policies {}, revoked AKs {}",
            pins.len(),
            policies.len(),
            revoked.len()
        )))
    }

    /// These keys must not verify. If one of them is pinned, nobody is believed any more.
    ///
    /// # Errors
    /// When one is.
    pub fn forbid(&self, forbidden: Vec<Sha256>) -> Result<(), VerifiersError> {
        let mut state = self.state();
        state.forbidden = forbidden;
        state.generation += 1;
        if self.path.is_none() {
            return Ok(());
        }
        let keys = PinnedKeys::new(&state.believed.pins, &state.forbidden);
        let (keys, error) = match keys {
            Ok(keys) => (Some(keys), Ok(())),
            Err(error) => (None, Err(error.into())),
        };
        state.keys = keys;
        error
    }

    /// What is made of what a peer shows, whose certificate was proven in this link's handshake.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn judge(&self, peer: &PeerIdentity, shown: &Shown) -> Result<Held, Disbelief> {
        let token = match shown {
            Shown::Result(token) => token,
            Shown::Nothing(why) => return Err(Disbelief::Nothing(why.clone())),
        };
        let (wall, boot) = (UnixTime::now(), boot_time());
        let key = Sha256(peer.key_hash());
        let result = self.verify(peer.id(), key, token, wall)?;
        // An older one of the same boot is no fault: the peer may have another daemon that is ahead.
        self.state()
            .ledger
            .admit(result.ak(), result.counters(), result.issued())?;
        Ok(Held::new(result, token.clone(), wall, boot))
    }

    /// Grows when others are believed than before: whatever was believed is to be looked at anew.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Whether a Result that was believed has not ended.
    ///
    /// # Errors
    /// When it has.
    pub fn check_time(&self, held: &Held) -> Result<(), Disbelief> {
        match held.standing(boot_time(), self.max_stale) {
            Standing::Fresh | Standing::Stale => Ok(()),
            Standing::Ended => Err(Disbelief::Ended(String::new())),
        }
    }

    /// Whether whoever signed a Result is still believed, about this AK and by this policy.
    ///
    /// # Errors
    /// When not.
    pub fn check_signer(&self, peer: &PeerIdentity, held: &Held) -> Result<(), Disbelief> {
        let key = Sha256(peer.key_hash());
        let verified = self.verify(peer.id(), key, held.token(), UnixTime::now());
        match verified {
            Ok(_) => Ok(()),
            // What is held ages by the boot-time clock, which nobody sets.
            Err(Disbelief::Result(
                ResultError::Ended { .. }
                | ResultError::PastHardExpiry(_)
                | ResultError::FromTheFuture(_),
            )) => Ok(()),
            Err(_) => Err(Disbelief::Revoked(held.result().ak())),
        }
    }

    /// # Errors
    /// When it is not believed about this node and key.
    pub fn verify(
        &self,
        node: &SpiffeId,
        node_key: NodeKey,
        token: &str,
        now: UnixTime,
    ) -> Result<AttestationResult, Disbelief> {
        let state = self.state();
        let required = Required {
            node: node.clone(),
            node_key,
            policies: state.believed.policies.clone(),
            max_stale: self.max_stale,
        };
        let keys = state.keys.as_ref().ok_or(Disbelief::Nobody)?;
        let result = keys.verify(token, &required, now)?;
        match state.believed.revoked.contains(&result.ak()) {
            true => Err(Disbelief::Revoked(result.ak())),
            false => Ok(result),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A bad text is remembered too, so that it is complained about once.
    fn take(&mut self, text: String) -> Result<(), VerifiersError> {
        let parsed = Believed::parse(&text);
        self.text = text;
        let believed = parsed?;
        self.keys = Some(PinnedKeys::new(&believed.pins, &self.forbidden)?);
        self.believed = believed;
        self.generation += 1;
        Ok(())
    }
}

impl Believed {
    fn parse(text: &str) -> Result<Self, VerifiersError> {
        let document: Document =
            toml::from_str(text).map_err(|error| VerifiersError::Toml(Box::new(error)))?;
        let digest = |text: String| Sha256::parse(&text).ok_or(VerifiersError::Digest(text));
        let pin = |raw: RawPin| match hex(&raw.key).and_then(|key| key.try_into().ok()) {
            Some(point) => Ok(Pin {
                name: raw.name,
                point,
            }),
            None => Err(VerifiersError::Key(raw.name)),
        };
        if document.revoked_aks.len() > REVOKED_AKS {
            return Err(VerifiersError::TooManyRevoked);
        }
        let revoked = document.revoked_aks.into_iter();
        Ok(Self {
            pins: document
                .verifier
                .into_iter()
                .map(pin)
                .collect::<Result<_, _>>()?,
            policies: document
                .policies
                .into_iter()
                .map(digest)
                .collect::<Result<_, _>>()?,
            revoked: revoked
                .map(|text| digest(text).map(AkName))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn read(path: &PathBuf) -> Result<String, VerifiersError> {
    let text = std::fs::read_to_string(path).map_err(|source| VerifiersError::Read {
        path: path.clone(),
        source,
    })?;
    match text.len() > VERIFIERS_BYTES {
        true => Err(VerifiersError::TooLarge),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::RawSettings;
    use super::super::testing::Scene;
    use super::*;

    struct Bench {
        scene: Scene,
        folder: tempfile::TempDir,
        judge: Judge,
    }

    impl Bench {
        fn new() -> Self {
            let scene = Scene::new();
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("v"), pin(&scene)).expect("written");
            let judge = Judge::new(&settings(&folder), Vec::new()).expect("a good file");
            Self {
                scene,
                folder,
                judge,
            }
        }

        fn write(&self, text: &str) {
            std::fs::write(self.folder.path().join("v"), text).expect("written");
        }

        fn verify(&self, token: &str) -> Result<AttestationResult, Disbelief> {
            let (node, key) = (&self.scene.attester.node, self.scene.node_key());
            self.judge.verify(node, key, token, UnixTime::now())
        }
    }

    fn settings(folder: &tempfile::TempDir) -> Settings {
        let text = format!(
            "mode = \"required\"\nverifier = \"192.0.2.9:1\"\nak_certificate = \"c\"\nverifiers = \"{}/v\"\n",
            folder.path().display()
        );
        let raw: RawSettings = toml::from_str(&text).expect("settings");
        raw.check().expect("settings")
    }

    fn pin(scene: &Scene) -> String {
        let key = data_encoding::HEXLOWER.encode(&scene.pin.point);
        format!("[[verifier]]\nname = \"v\"\nkey = \"{key}\"\n")
    }

    #[test]
    fn a_result_is_believed_of_its_node_and_key_only_and_not_of_a_revoked_ak() {
        let mut bench = Bench::new();
        let token = bench.scene.token(300);
        let result = bench.verify(&token).expect("just issued");
        let other = Sha256([7; 32]);
        let node = bench.scene.attester.node.clone();
        let refused = bench.judge.verify(&node, other, &token, UnixTime::now());
        assert_eq!(refused, Err(Disbelief::Result(ResultError::OtherNodeKey)));
        let ended = bench.scene.token(0);
        let refused = bench.verify(&ended).expect_err("it has ended");
        assert_eq!(refused.label(), "result-ended");

        let generation = bench.judge.generation();
        let ak = result.ak();
        bench.write(&format!("revoked_aks = [\"{ak}\"]\n{}", pin(&bench.scene)));
        assert!(bench.judge.reload().expect("good").is_some());
        assert_eq!(bench.verify(&token), Err(Disbelief::Revoked(ak)));
        assert!(bench.judge.generation() > generation);
        let zeros = "0".repeat(64);
        bench.write(&format!("policies = [\"{zeros}\"]\n{}", pin(&bench.scene)));
        bench.judge.reload().expect("good");
        let refused = bench.verify(&token).expect_err("another policy");
        assert_eq!(refused.label(), "result-other-policy");
    }

    #[test]
    fn a_file_that_cannot_be_used_leaves_the_last_good_one_in_force() {
        let mut bench = Bench::new();
        let token = bench.scene.token(300);
        for bad in ["nonsense", "[[verifier]]\nname = \"v\"\nkey = \"04\"\n", ""] {
            bench.write(bad);
            assert!(bench.judge.reload().is_err(), "{bad:?}");
            assert!(bench.verify(&token).is_ok(), "{bad:?}");
            assert_eq!(bench.judge.reload().ok(), Some(None), "said once");
        }
    }

    #[test]
    fn a_verifier_whose_key_issues_identities_by_now_is_believed_no_more() {
        let mut bench = Bench::new();
        let token = bench.scene.token(300);
        let issuing = vec![bench.scene.pin.id()];
        assert!(bench.judge.forbid(issuing.clone()).is_err());
        assert_eq!(bench.verify(&token), Err(Disbelief::Nobody));
        assert!(Judge::new(&settings(&bench.folder), issuing).is_err());
        bench.judge.forbid(Vec::new()).expect("its key alone");
        assert!(bench.verify(&token).is_ok());
    }

    #[test]
    fn a_reason_for_no_result_is_kept_and_its_refusal_is_its_own() {
        let ended = Disbelief::Ended(String::new()).because(Some("PCR 7 is 00".into()));
        assert!(ended.to_string().contains("PCR 7"), "{ended}");
        assert_eq!(ended.refusal(), Refusal::AttestationEnded);
        let nothing = Disbelief::Nothing("no TPM".into());
        assert_eq!(nothing.refusal(), Refusal::PeerUnattested);
        assert_eq!(Disbelief::Nobody.refusal(), Refusal::PeerAttestationRefused);
    }
}
