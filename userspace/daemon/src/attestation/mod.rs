//! Attestation (docs/attestation.md): what this node shows of itself, and what it believes of others.
//!
//! ```text
//!   TPM ── tpm::Door ── Evidence ──► client ──► Verifier
//!                                      │ token
//!   own: what we show ◄── renewal ─────┘            judge: what peers show ─► Held, or Disbelief
//!         │                                                 ▲
//!         └────────────► links::control ◄───────────────────┘
//!   local: what anybody on the node may ask ◄── edge::attest_socket
//! ```
//!
//! No connection waits for the TPM: links show what [`own`] has, and it is renewed ahead of its end.

mod client;
mod judge;
mod local;
mod own;
mod renewal;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
mod tpm;

pub use client::hex;
pub use judge::{Disbelief, Judge};
pub use local::Local;
pub use own::{Own, OwnState};
pub use settings::{EndedFlows, RawSettings, Settings};

use crate::config::Config;
use crate::events::Events;
use crate::links::Link;
use anyhow::Result;
use kedge_api::{AttestationMode, AttestationStatus, OwnResult, Timestamp};
use kedge_attest::{BootTime, Held, NodeKey, Sha256, Standing};
use kedge_identity::{NodeSvid, Trust};
use kedge_link::wire::Attesting;
use kedge_model::SpiffeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
pub use tpm::{Door, DoorError};

/// A cheap handle, one for everybody who shows or looks.
#[derive(Clone)]
pub struct Attestation(Arc<Shared>);

struct Shared {
    settings: Settings,
    node: SpiffeId,
    events: Events,
    own: Own,
    judge: Judge,
    door: Door,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    attempts: AtomicU64,
    results: AtomicU64,
    failures: AtomicU64,
    waited: AtomicU64,
    waited_after_first: AtomicU64,
    local_answers: AtomicU64,
    local_failures: AtomicU64,
    local_limited: AtomicU64,
    local_unidentified: AtomicU64,
    local_closed: AtomicU64,
}

impl Attestation {
    /// Opens the TPM and asks for a Result from now on, unless the mode is off.
    ///
    /// # Errors
    /// When the file of those who are believed cannot be used.
    pub fn begin(config: &Config, events: &Events, svid: &NodeSvid, trust: &Trust) -> Result<Self> {
        let settings = config.attestation.clone();
        let key = Sha256(svid.key_hash());
        let judge = Judge::new(&settings, forbidden(trust, key))?;
        let attestation = Self(Arc::new(Shared {
            node: config.id(),
            events: events.clone(),
            own: Own::new(key),
            judge,
            door: Door::default(),
            counters: Counters::default(),
            settings,
        }));
        if attestation.mode() != AttestationMode::Off {
            tokio::spawn(renewal::run(attestation.clone()));
        }
        Ok(attestation)
    }

    #[must_use]
    pub fn mode(&self) -> AttestationMode {
        self.0.settings.mode
    }

    #[must_use]
    pub fn is_required(&self) -> bool {
        self.mode() == AttestationMode::Required
    }

    /// What our hello says.
    #[must_use]
    pub fn attesting(&self) -> Option<Attesting> {
        match self.mode() {
            AttestationMode::Off => None,
            AttestationMode::Optional => Some(Attesting::Optional),
            AttestationMode::Required => Some(Attesting::Required),
        }
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    #[must_use]
    pub fn judge(&self) -> &Judge {
        &self.0.judge
    }

    #[must_use]
    pub fn own(&self) -> &Own {
        &self.0.own
    }

    #[must_use]
    pub fn door(&self) -> &Door {
        &self.0.door
    }

    /// The SVID that links are to be made under has this key: a Result about it is asked for at once.
    pub fn use_node_key(&self, key: NodeKey, trust: &Trust) {
        self.0.own.use_key(key);
        self.forbid(trust);
    }

    /// Other anchors issue identities from now on: none of their keys may verify.
    pub fn forbid(&self, trust: &Trust) {
        let key = self.0.own.key();
        if let Err(error) = self.0.judge.forbid(forbidden(trust, key)) {
            self.0.events.nobody_believed(&error);
        }
    }

    /// A link waits for what we have to show. After the first Result none ever does.
    pub fn count_wait(&self) {
        let counters = &self.0.counters;
        counters.waited.fetch_add(1, Relaxed);
        if counters.results.load(Relaxed) > 0 {
            counters.waited_after_first.fetch_add(1, Relaxed);
        }
    }

    /// A peer's Result is not believed, and does not have to be.
    pub fn tell_disbelieved(&self, link: &Link, why: &Disbelief) {
        self.0.events.peer_disbelieved(link, why);
    }

    /// What a Result that we hold is good for now.
    #[must_use]
    pub fn standing(&self, held: &Held) -> Standing {
        held.standing(boot_time(), self.max_stale())
    }

    /// What we may show goes on after its five minutes as long as our own peers could take it.
    #[must_use]
    pub fn max_stale(&self) -> Duration {
        self.0.settings.max_stale
    }

    /// By name, as the admin API and the metrics give them.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        if self.mode() == AttestationMode::Off {
            return BTreeMap::new();
        }
        let Counters {
            attempts,
            results,
            failures,
            waited,
            waited_after_first,
            local_answers,
            local_failures,
            local_limited,
            local_unidentified,
            local_closed,
        } = &self.0.counters;
        let quotes = self.0.door.counters();
        let named = [
            ("attempts", attempts.load(Relaxed)),
            ("results", results.load(Relaxed)),
            ("failures", failures.load(Relaxed)),
            ("waited", waited.load(Relaxed)),
            ("waited_after_first", waited_after_first.load(Relaxed)),
            ("local_answers", local_answers.load(Relaxed)),
            ("local_failures", local_failures.load(Relaxed)),
            ("local_limited", local_limited.load(Relaxed)),
            ("local_unidentified", local_unidentified.load(Relaxed)),
            ("local_closed", local_closed.load(Relaxed)),
            ("quotes", quotes.quotes),
            ("challenges", quotes.challenges),
            ("tpm_errors", quotes.errors),
        ];
        let named = named.into_iter();
        named
            .map(|(name, count)| (format!("attestation.{name}"), count))
            .collect()
    }

    /// Without what peers have shown.
    #[must_use]
    pub fn status(&self) -> AttestationStatus {
        let state = self.0.own.state();
        let held = state.held(self.0.own.key());
        AttestationStatus {
            mode: self.mode(),
            ak: self.0.door.ak(),
            tpm_error: self.0.door.error(),
            result: held.map(|held| {
                let result = held.result();
                OwnResult {
                    verifier: result.verifier().to_owned(),
                    issued: Timestamp::from_unix_s(result.issued()),
                    fresh_for_s: seconds_until(held.fresh_until()),
                    policy: result.policy().to_string(),
                    reset: result.counters().reset,
                    restart: result.counters().restart,
                    token: held.token().to_owned(),
                }
            }),
            result_error: state.why(),
            peers: Vec::new(),
            counters: self.counters(),
        }
    }
}

/// What [`Attestation::begin`] would say of the configuration.
///
/// # Errors
/// When the file of those who are believed cannot be used.
pub fn check(config: &Config, svid: &NodeSvid, trust: &Trust) -> Result<()> {
    Judge::new(
        &config.attestation,
        forbidden(trust, Sha256(svid.key_hash())),
    )?;
    Ok(())
}

/// Whoever issues identities, and this node itself, must not make machines honest.
fn forbidden(trust: &Trust, node_key: NodeKey) -> Vec<Sha256> {
    let anchors = trust.key_hashes().into_iter().map(Sha256);
    anchors.chain([node_key]).collect()
}

/// By the clock that nobody sets.
///
/// # Panics
/// Never on Linux, which always has that clock.
#[must_use]
pub fn boot_time() -> BootTime {
    BootTime(kedge_sys::process::boot_time().expect("Linux has CLOCK_BOOTTIME"))
}

fn seconds_until(end: BootTime) -> i64 {
    let now = boot_time();
    let whole = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    whole(end.since(now)) - whole(now.since(end))
}
