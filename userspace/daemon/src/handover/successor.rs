//! The side of the daemon that starts.

use crate::handover::SOCKET_FILE;
use crate::handover::channel::{Channel, Handed, Message, Passed};
use crate::limits::HANDOVER_ANSWER;
use anyhow::{Context, Result, bail};
use kedge_sys::passing;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::time::timeout;

/// The daemon that serves until we do. Dropped before [`Predecessor::serve_instead`], it goes on.
pub struct Predecessor(Arc<Channel>);

/// Takes carriers of links that are not ours, as long as the predecessor lives.
#[derive(Clone)]
pub struct PassOn(Arc<Channel>);

impl Predecessor {
    /// The daemon that serves this node, if one does, and all its listening sockets.
    pub async fn find(run_dir: &Path) -> Result<Option<(Self, Handed)>> {
        let socket = match passing::connect(&run_dir.join(SOCKET_FILE)) {
            Ok(socket) => socket,
            Err(error) if nobody_listens(&error) => return Ok(None),
            Err(error) => return Err(error).context("ask for a predecessor"),
        };
        let channel = Channel::new(socket)?;
        channel.send(&Message::Take)?;
        let handed = timeout(HANDOVER_ANSWER, listeners(&channel)).await;
        let handed = handed.map_err(io::Error::from).and_then(|handed| handed);
        let handed = handed.with_context(|| {
            format!(
                "the kedged that serves does not hand over: kill who holds {}, then start again",
                run_dir.join(SOCKET_FILE).display()
            )
        })?;
        Ok(Some((Self(Arc::new(channel)), handed)))
    }

    /// Until it accepts no connection any more.
    pub async fn stand_by(&self) -> Result<()> {
        self.0.send(&Message::StandBy)?;
        let answer = timeout(HANDOVER_ANSWER, self.0.receive()).await;
        let answer = answer.map_err(io::Error::from).and_then(|answer| answer);
        match answer.context("the predecessor does not stand by")? {
            Message::StandingBy => Ok(()),
            other => bail!("the predecessor says {other:?} and does not stand by"),
        }
    }

    /// From here on it does not come back.
    pub fn serve_instead(&self) -> Result<()> {
        self.0
            .send(&Message::Serving)
            .context("tell the predecessor that we serve")
    }

    /// What workers hand carriers on by.
    pub fn pass_on(&self) -> PassOn {
        PassOn(Arc::clone(&self.0))
    }
}

impl PassOn {
    pub fn pass(&self, carrier: Passed) -> io::Result<()> {
        self.0.send(&Message::Carrier(carrier))
    }
}

async fn listeners(channel: &Channel) -> io::Result<Handed> {
    let mut handed = Handed::default();
    loop {
        match channel.receive().await? {
            Message::Listeners(role, listeners) => {
                handed
                    .0
                    .extend(listeners.into_iter().map(|listener| (role, listener)));
            }
            Message::All => return Ok(handed),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn nobody_listens(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}
