//! The thread that owns the TPM: what it is told, and what it does.

use crate::broker::Description;
use kedge_attest::{AkPublic, Batch, Batcher, Credential, Evidence, Quoted, Tpm, TpmError};
use rustls_pki_types::CertificateDer;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

pub(crate) type Reply = oneshot::Sender<Result<Evidence, TpmError>>;

/// What the thread is told.
pub(crate) enum Command {
    /// Somebody waits for a quote.
    Quote,
    EkCertificate(oneshot::Sender<Result<CertificateDer<'static>, TpmError>>),
    Activate(
        Credential,
        oneshot::Sender<Result<Zeroizing<Vec<u8>>, TpmError>>,
    ),
}

/// What the thread shares with those who ask. Locks are held for moves only, never during a hash, an
/// answer or a command of the TPM.
pub(crate) struct Core {
    batcher: Mutex<Batcher<Reply>>,
    description: Mutex<Arc<Description>>,
    ak: AkPublic,
    started: Instant,
}

impl Core {
    pub(crate) fn new(ak: AkPublic, description: Description) -> Self {
        Self {
            batcher: Mutex::new(Batcher::new(description.node_key)),
            description: Mutex::new(Arc::new(description)),
            ak,
            started: Instant::now(),
        }
    }

    pub(crate) fn batcher(&self) -> MutexGuard<'_, Batcher<Reply>> {
        self.batcher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn describe(&self, description: Description) {
        self.batcher().use_node_key(description.node_key);
        let mut current = self
            .description
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(description);
    }

    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn description(&self) -> Arc<Description> {
        Arc::clone(
            &self
                .description
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// Until the last handle is gone.
pub(crate) fn run(core: &Core, mut tpm: impl Tpm, commands: Receiver<Command>) {
    let mut post = Post {
        core,
        commands: Some(commands),
    };
    while let Some(command) = post.wait() {
        obey(&mut tpm, command);
        while let Some(batch) = begin(core) {
            quote(core, &mut tpm, batch);
            // Whoever wants something else waits for one quote, however many challenges come.
            if let Some(command) = post.look() {
                obey(&mut tpm, command);
            }
        }
    }
}

/// Where commands arrive. However the thread ends, the post is closed before those who wait are let
/// go: whoever comes in between finds it closed, and lets them go as well.
struct Post<'a> {
    core: &'a Core,
    commands: Option<Receiver<Command>>,
}

impl Post<'_> {
    fn wait(&mut self) -> Option<Command> {
        self.commands.as_ref()?.recv().ok()
    }

    fn look(&mut self) -> Option<Command> {
        self.commands.as_ref()?.try_recv().ok()
    }
}

impl Drop for Post<'_> {
    fn drop(&mut self) {
        drop(self.commands.take());
        self.core.batcher().abandon();
    }
}

fn begin(core: &Core) -> Option<Batch<Reply>> {
    core.batcher().begin(oneshot::Sender::is_closed)
}

fn quote(core: &Core, tpm: &mut impl Tpm, mut batch: Batch<Reply>) {
    let description = core.description();
    let quote = tpm.quote(&batch.qualifying_data().0, description.pcrs);
    let quoted = quote.map(|quote| {
        Arc::new(Quoted {
            attest: quote.attest,
            signature: quote.signature,
            pcrs: quote.pcrs,
            ak: core.ak.clone(),
            ak_chain: description.ak_chain.clone(),
            event_log: description.event_log.clone(),
        })
    });
    let answers = core.batcher().complete(batch, quoted);
    for (reply, answer) in answers {
        // Whoever has left meanwhile does not want it.
        let _ = reply.send(answer);
    }
}

fn obey(tpm: &mut impl Tpm, command: Command) {
    match command {
        Command::Quote => {}
        Command::EkCertificate(reply) => {
            let _ = reply.send(tpm.ek_certificate());
        }
        Command::Activate(credential, reply) => {
            let _ = reply.send(tpm.activate_credential(&credential));
        }
    }
}
