//! The section `[attestation]` of the configuration.

use kedge_api::AttestationMode;
use kedge_attest::limits::{PCRS, RESULT_HARD_LIFETIME_MAX, RESULT_LIFETIME};
use kedge_attest::{PcrSelection, RefreshPolicy};
use kedge_tpm::{AK_HANDLE, DeviceConfig};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What attestation runs by.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: AttestationMode,
    pub device: DeviceConfig,
    pub ak_certificate: Option<PathBuf>,
    pub pcrs: PcrSelection,
    pub event_log: Option<PathBuf>,
    /// Where the Verifier is; the programs let kedged speak to it.
    pub verifier: Option<SocketAddr>,
    /// Whom we believe.
    pub verifiers: Option<PathBuf>,
    pub max_stale: Duration,
    pub flows: EndedFlows,
    pub refresh: RefreshPolicy,
}

/// What becomes of open flows when their peer's Result has ended. (Those whose peer is no longer
/// believed are reset in any case.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndedFlows {
    #[default]
    Keep,
    Reset,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSettings {
    mode: AttestationMode,
    tcti: String,
    ak_handle: u32,
    ak_certificate: Option<PathBuf>,
    pcrs: Vec<u8>,
    event_log: Option<PathBuf>,
    verifier: Option<SocketAddr>,
    verifiers: Option<PathBuf>,
    max_stale_s: u64,
    flows: EndedFlows,
    refresh: RawRefresh,
}

/// When the node asks for its next Result: [`RefreshPolicy`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRefresh {
    eagerness: f64,
    cost_min_s: u64,
    backoff_min_s: u64,
    backoff_max_s: u64,
}

impl Default for RawRefresh {
    fn default() -> Self {
        let policy = RefreshPolicy::default();
        Self {
            eagerness: policy.eagerness,
            cost_min_s: policy.cost_min.as_secs(),
            backoff_min_s: policy.backoff_min.as_secs(),
            backoff_max_s: policy.backoff_max.as_secs(),
        }
    }
}

impl Default for RawSettings {
    fn default() -> Self {
        Self {
            mode: AttestationMode::Off,
            tcti: "device:/dev/tpmrm0".to_owned(),
            ak_handle: AK_HANDLE,
            ak_certificate: None,
            pcrs: vec![0, 1, 2, 3, 4, 5, 6, 7],
            event_log: None,
            verifier: None,
            verifiers: None,
            max_stale_s: 0,
            flows: EndedFlows::default(),
            refresh: RawRefresh::default(),
        }
    }
}

impl RawSettings {
    /// # Errors
    /// What cannot work.
    pub fn check(self) -> Result<Settings, &'static str> {
        let is_on = self.mode != AttestationMode::Off;
        let rules = [
            (
                !is_on || self.verifier.is_some(),
                "attestation.verifier is missing: nobody would issue a Result",
            ),
            (
                !is_on || self.verifiers.is_some(),
                "attestation.verifiers is missing: nobody's Results would be believed",
            ),
            (
                !is_on || self.ak_certificate.is_some(),
                "attestation.ak_certificate is missing: say where enrolment puts it",
            ),
            (
                self.pcrs.iter().all(|index| *index < PCRS),
                "attestation.pcrs are 0 to 23",
            ),
            (
                self.max_stale_s <= RESULT_HARD_LIFETIME_MAX.as_secs(),
                "attestation.max_stale_s is more than a day",
            ),
            (
                (0.0..=10.0).contains(&self.refresh.eagerness),
                "attestation.refresh.eagerness is 0 to 10",
            ),
            (
                self.refresh.cost_min_s <= RESULT_LIFETIME.as_secs(),
                "attestation.refresh.cost_min_s is more than a Result's 300 s",
            ),
            (
                (1..=self.refresh.backoff_max_s).contains(&self.refresh.backoff_min_s)
                    && self.refresh.backoff_max_s <= 3_600,
                "attestation.refresh wants 1 <= backoff_min_s <= backoff_max_s <= 3600",
            ),
        ];
        if let Some((_, broken)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(broken);
        }
        Ok(Settings {
            mode: self.mode,
            device: DeviceConfig {
                ak_handle: self.ak_handle,
                ..DeviceConfig::at(&self.tcti)
            },
            ak_certificate: self.ak_certificate,
            pcrs: PcrSelection::of(&self.pcrs),
            event_log: self.event_log,
            verifier: self.verifier.filter(|_| is_on),
            verifiers: self.verifiers,
            max_stale: Duration::from_secs(self.max_stale_s),
            flows: self.flows,
            refresh: RefreshPolicy {
                eagerness: self.refresh.eagerness,
                cost_min: Duration::from_secs(self.refresh.cost_min_s),
                backoff_min: Duration::from_secs(self.refresh.backoff_min_s),
                backoff_max: Duration::from_secs(self.refresh.backoff_max_s),
                ..RefreshPolicy::default()
            },
        })
    }
}
