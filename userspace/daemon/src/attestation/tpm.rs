//! The way to the TPM: opened on a thread that may wait for ever, asked with a bound.

use super::Settings;
use crate::limits::{TPM_ANSWER, TPM_RETRY};
use kedge_attest::{
    AkPublic, BatchCounters, Caller, Credential, Evidence, NodeKey, Nonce, TpmError,
};
use kedge_tpm::{AskError, Broker, Description, Device};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

/// Why the TPM did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    #[error("attestation is off")]
    Off,
    #[error("the TPM is not open: {0}")]
    NotOpen(String),
    #[error("the TPM has not answered for {} s", TPM_ANSWER.as_secs())]
    Hangs,
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Tpm(#[from] TpmError),
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: no certificates in PEM", path.display())]
    Pem { path: PathBuf },
}

/// Where the broker is, once there is one.
#[derive(Default)]
pub struct Door(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Off,
    Opening,
    Failed(String),
    Open(Broker, AkPublic),
}

impl Door {
    /// Opens the TPM, however often that takes; `tell` hears of each new reason why not.
    pub(super) async fn open(&self, settings: &Settings, key: NodeKey, tell: impl Fn(&str)) {
        self.set(State::Opening);
        let mut last = None;
        loop {
            let failure = match open_aside(settings, key).await {
                Ok((broker, ak)) => return self.set(State::Open(broker, ak)),
                Err(failure) => failure.to_string(),
            };
            if last.as_ref() != Some(&failure) {
                tell(&failure);
            }
            self.set(State::Failed(failure.clone()));
            last = Some(failure);
            sleep(TPM_RETRY).await;
        }
    }

    /// Evidence for a Verifier of that name.
    ///
    /// # Errors
    /// When the TPM does not answer in time, or a file that goes with it cannot be read.
    pub async fn appraisal(
        &self,
        settings: &Settings,
        key: NodeKey,
        (verifier, nonce): (Caller, Nonce),
    ) -> Result<Evidence, DoorError> {
        let broker = self.broker()?;
        broker.describe(describe(settings, key)?);
        within(broker.appraisal(verifier, nonce))
            .await?
            .map_err(DoorError::from)
    }

    /// Evidence for somebody on this node.
    ///
    /// # Errors
    /// When the TPM does not answer in time, or a file that goes with it cannot be read.
    pub async fn local(
        &self,
        settings: &Settings,
        key: NodeKey,
        (caller, nonce): (Caller, Nonce),
    ) -> Result<Evidence, DoorError> {
        let broker = self.broker()?;
        broker.describe(describe(settings, key)?);
        let door = broker.local_door();
        within(door.attest(caller, nonce))
            .await?
            .map_err(DoorError::from)
    }

    /// # Errors
    /// When the TPM does not answer in time, or has no EK certificate.
    pub async fn ek_certificate(&self) -> Result<CertificateDer<'static>, DoorError> {
        let broker = self.broker()?;
        within(broker.ek_certificate())
            .await?
            .map_err(DoorError::from)
    }

    /// # Errors
    /// When the TPM does not answer in time, or the credential is not for it and its AK.
    pub async fn activate(&self, credential: Credential) -> Result<Zeroizing<Vec<u8>>, DoorError> {
        let broker = self.broker()?;
        within(broker.activate_credential(credential))
            .await?
            .map_err(DoorError::from)
    }

    /// # Errors
    /// When the TPM is not open.
    pub fn ak_public(&self) -> Result<AkPublic, DoorError> {
        match &*self.state() {
            State::Open(_, ak) => Ok(ak.clone()),
            other => Err(other.closed()),
        }
    }

    #[must_use]
    pub fn ak(&self) -> Option<String> {
        self.ak_public().ok().map(|ak| ak.name().to_string())
    }

    /// Why it is not open, where it should be.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match &*self.state() {
            State::Failed(failure) => Some(failure.clone()),
            State::Off | State::Opening | State::Open(..) => None,
        }
    }

    #[must_use]
    pub fn counters(&self) -> BatchCounters {
        match &*self.state() {
            State::Open(broker, _) => broker.counters(),
            _ => BatchCounters::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn with(
        settings: &Settings,
        key: NodeKey,
        mut tpm: impl kedge_attest::Tpm + 'static,
    ) -> Self {
        let ak = tpm.ak_public().expect("an AK");
        let description = describe(settings, key).expect("no files");
        let broker = Broker::start(tpm, description).expect("a thread");
        Self(Mutex::new(State::Open(broker, ak)))
    }

    fn broker(&self) -> Result<Broker, DoorError> {
        match &*self.state() {
            State::Open(broker, _) => Ok(broker.clone()),
            other => Err(other.closed()),
        }
    }

    fn set(&self, state: State) {
        *self.state() = state;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn closed(&self) -> DoorError {
        match self {
            Self::Off => DoorError::Off,
            Self::Failed(failure) => DoorError::NotOpen(failure.clone()),
            Self::Opening | Self::Open(..) => DoorError::NotOpen("it has not answered yet".into()),
        }
    }
}

/// On a thread of its own, since a TPM may never answer and nobody ends a thread.
async fn open_aside(settings: &Settings, key: NodeKey) -> Result<(Broker, AkPublic), DoorError> {
    let (reply, answer) = oneshot::channel();
    let config = settings.device.clone();
    let description = describe(settings, key)?;
    let open = move || {
        let opened = Device::open(&config).and_then(|mut device| {
            let ak = kedge_attest::Tpm::ak_public(&mut device)?;
            Ok((Broker::start(device, description)?, ak))
        });
        // Nobody waits any more: the daemon ends.
        let _ = reply.send(opened);
    };
    std::thread::Builder::new()
        .name("tpm-open".into())
        .spawn(open)
        .map_err(|_| TpmError::Gone)?;
    // As long as it takes: a second thread would meet the same TPM.
    Ok(answer.await.map_err(|_| TpmError::Gone)??)
}

/// What is said beside a quote, as it is now.
fn describe(settings: &Settings, node_key: NodeKey) -> Result<Description, DoorError> {
    let event_log = settings.event_log.as_ref().map(|path| {
        std::fs::read(path).map_err(|source| DoorError::Read {
            path: path.clone(),
            source,
        })
    });
    Ok(Description {
        node_key,
        pcrs: settings.pcrs,
        ak_chain: ak_chain(settings)?,
        event_log: event_log.transpose()?,
    })
}

/// Empty before enrolment.
fn ak_chain(settings: &Settings) -> Result<Vec<CertificateDer<'static>>, DoorError> {
    let Some(path) = &settings.ak_certificate else {
        return Ok(Vec::new());
    };
    let pem = match std::fs::read(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(DoorError::Read {
                path: path.clone(),
                source,
            });
        }
    };
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>();
    certificates.map_err(|_| DoorError::Pem { path: path.clone() })
}

async fn within<T>(asked: impl Future<Output = T>) -> Result<T, DoorError> {
    const BOUND: Duration = TPM_ANSWER;
    timeout(BOUND, asked).await.map_err(|_| DoorError::Hangs)
}
