//! One thread that owns the TPM, and doors to it for those who ask.
//!
//! ```text
//!   edge (socket) ── LocalDoor ──┐
//!   link code ────── LinkDoor ───┼─► Batcher ─► owner thread ─► TPM
//!   CA, Verifier ─── Broker ─────┘      ▲            │
//!                                       └── answers ─┘
//! ```
//!
//! A door is a type: whoever holds a [`LocalDoor`] alone cannot get Evidence for a link, and has
//! nowhere to say a purpose. Nobody who asks is ever blocked: an answer is awaited, and a caller that
//! leaves is left out of the next quote.

use crate::limits::COMMANDS_MAX;
use crate::owner::{Command, Core, run};
use kedge_attest::{
    BatchCounters, BatchError, Caller, Challenge, Credential, Evidence, LinkExporter, NodeKey,
    Nonce, PcrSelection, Tpm, TpmError,
};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// What is said about the node beside a quote. It is read anew for each one.
#[derive(Clone, Debug)]
pub struct Description {
    pub node_key: NodeKey,
    pub pcrs: PcrSelection,
    /// The AK's certificate, then its intermediates; empty before enrolment.
    pub ak_chain: Vec<CertificateDer<'static>>,
    pub event_log: Option<Vec<u8>>,
}

/// Why there is no Evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

/// All that may be asked. Its thread ends when the last handle is gone, after its last command.
#[derive(Clone)]
pub struct Broker {
    core: Arc<Core>,
    commands: SyncSender<Command>,
}

/// For those who are on the node: they give a nonce, and the edge says who they are.
#[derive(Clone)]
pub struct LocalDoor(Broker);

/// For the link's own code.
#[derive(Clone)]
pub struct LinkDoor(Broker);

impl Broker {
    /// Gives the TPM its thread. Opening it may block; do that elsewhere.
    ///
    /// # Errors
    /// When the TPM does not say what its AK is, or there is no thread to be had.
    pub fn start(mut tpm: impl Tpm + 'static, description: Description) -> Result<Self, TpmError> {
        let ak = tpm.ak_public()?;
        let core = Arc::new(Core::new(ak, description));
        let (commands, received) = sync_channel(COMMANDS_MAX);
        let owned = Arc::clone(&core);
        std::thread::Builder::new()
            .name("kedge-tpm".into())
            .spawn(move || run(&owned, tpm, received))
            .map_err(|_| TpmError::Gone)?;
        Ok(Self { core, commands })
    }

    #[must_use]
    pub fn local_door(&self) -> LocalDoor {
        LocalDoor(self.clone())
    }

    #[must_use]
    pub fn link_door(&self) -> LinkDoor {
        LinkDoor(self.clone())
    }

    /// Evidence for the Verifier that is to issue a Result.
    ///
    /// # Errors
    /// When too many ask, or the TPM fails.
    pub async fn appraisal(&self, caller: Caller, nonce: Nonce) -> Result<Evidence, AskError> {
        self.ask(Challenge::appraisal(caller, nonce)).await
    }

    /// Evidence for the CA that certifies the AK.
    ///
    /// # Errors
    /// When too many ask, or the TPM fails.
    pub async fn enrolment(&self, caller: Caller, nonce: Nonce) -> Result<Evidence, AskError> {
        self.ask(Challenge::enrolment(caller, nonce)).await
    }

    /// # Errors
    /// When there is none, too many ask, or the TPM fails.
    pub async fn ek_certificate(&self) -> Result<CertificateDer<'static>, TpmError> {
        self.command(Command::EkCertificate).await
    }

    /// # Errors
    /// When the credential is not for this TPM and AK, too many ask, or the TPM fails.
    pub async fn activate_credential(
        &self,
        credential: Credential,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        self.command(|reply| Command::Activate(credential, reply))
            .await
    }

    /// The node has another SVID, AK certificate, event log or policy from now on.
    pub fn describe(&self, description: Description) {
        self.core.describe(description);
    }

    #[must_use]
    pub fn counters(&self) -> BatchCounters {
        self.core.batcher().counters()
    }

    async fn ask(&self, challenge: Challenge) -> Result<Evidence, AskError> {
        let (reply, answer) = oneshot::channel();
        let now = self.core.now();
        self.core
            .batcher()
            .submit(challenge, reply, now)
            .map_err(|(error, _)| error)?;
        // A full channel is as good: whatever command is taken next, those who wait come after it.
        if let Err(TrySendError::Disconnected(_)) = self.commands.try_send(Command::Quote) {
            self.core.batcher().abandon();
        }
        Ok(answer.await.unwrap_or(Err(TpmError::Gone))?)
    }

    async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, TpmError>>) -> Command,
    ) -> Result<T, TpmError> {
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(command(reply)) {
            Ok(()) => answer.await.unwrap_or(Err(TpmError::Gone)),
            Err(TrySendError::Full(_)) => Err(TpmError::Busy(COMMANDS_MAX)),
            Err(TrySendError::Disconnected(_)) => Err(TpmError::Gone),
        }
    }
}

impl LocalDoor {
    /// Evidence for `caller`, whom the edge has identified.
    ///
    /// # Errors
    /// When too many ask, this caller too often, or the TPM fails.
    pub async fn attest(&self, caller: Caller, nonce: Nonce) -> Result<Evidence, AskError> {
        self.0.ask(Challenge::local(caller, nonce)).await
    }
}

impl LinkDoor {
    /// Evidence for the peer of the link that `exporter` is of; `caller` is this node.
    ///
    /// # Errors
    /// When too many links ask, or the TPM fails.
    pub async fn attest(
        &self,
        caller: Caller,
        exporter: LinkExporter,
        nonce: Nonce,
    ) -> Result<Evidence, AskError> {
        self.0.ask(Challenge::link(caller, exporter, nonce)).await
    }
}
