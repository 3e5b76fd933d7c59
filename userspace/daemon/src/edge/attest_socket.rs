//! The attestation socket: gRPC for whoever is on the node, each by the name that the kernel and the
//! directory give him. One who floods, hangs or hides takes from his own share only.

use crate::attestation::{DoorError, Local};
use crate::edge::callers::{Cgroups, Unidentified};
use crate::edge::socket::Socket;
use crate::events::{Events, chain};
use crate::limits::{
    ACCEPT_PAUSE, ATTEST_CALLS_PER_CONNECTION, ATTEST_CONNECTION_AGE, ATTEST_CONNECTION_GRACE,
    ATTEST_CONNECTIONS, ATTEST_CONNECTIONS_PER_CALLER, TPM_ANSWER,
};
use crate::world::SharedWorld;
use kedge_attest::{BootTime, Caller, Nonce};
use kedge_attest_api::tonic::transport::Server;
use kedge_attest_api::tonic::transport::server::Connected;
use kedge_attest_api::tonic::{self, Request, Response, Status};
use kedge_attest_api::{
    AttestRequest, AttestResponse, Attestation, AttestationServer, GetResultRequest,
    GetResultResponse,
};
use kedge_tpm::AskError;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// `<run_dir>/attest/attest.sock`, for everybody.
pub struct AttestSocket(Socket);

impl AttestSocket {
    pub fn bind(run_dir: &Path) -> io::Result<Self> {
        Socket::bind(run_dir.join(kedge_attest_api::SOCKET), 0o666).map(Self)
    }

    /// Takes the place of an earlier daemon's.
    pub fn publish(
        self,
        (local, events): (Local, Events),
        (cgroups, world): (Cgroups, SharedWorld),
    ) -> io::Result<impl Future<Output = ()> + use<>> {
        let listener = self.0.publish()?;
        let identify = move |stream: &UnixStream| cgroups.identify(stream, &world.load());
        Ok(serve(listener, local, events, identify))
    }
}

async fn serve(
    listener: UnixListener,
    local: Local,
    events: Events,
    identify: impl Fn(&UnixStream) -> Result<Caller, Unidentified> + Send + 'static,
) {
    let (visits, arriving) = mpsc::channel(1);
    let porter = Porter {
        local: local.clone(),
        events: events.clone(),
        shares: Shares::default(),
        places: Arc::new(Semaphore::new(ATTEST_CONNECTIONS)),
    };
    tokio::spawn(porter.admit(listener, identify, visits));
    let served = Server::builder()
        .timeout(2 * TPM_ANSWER)
        .max_concurrent_streams(ATTEST_CALLS_PER_CONNECTION)
        .max_connection_age(ATTEST_CONNECTION_AGE)
        .max_connection_age_grace(ATTEST_CONNECTION_GRACE)
        .serve_with_incoming(
            AttestationServer::new(Service { local, events }),
            ReceiverStream::new(arriving),
        );
    if let Err(error) = served.await {
        tracing::error!(%error, "the attestation socket is not served any more");
    }
}

/// Lets in who has a share left.
struct Porter {
    local: Local,
    events: Events,
    shares: Shares,
    places: Arc<Semaphore>,
}

impl Porter {
    async fn admit(
        self,
        listener: UnixListener,
        identify: impl Fn(&UnixStream) -> Result<Caller, Unidentified>,
        visits: mpsc::Sender<io::Result<Visit>>,
    ) {
        while let Ok(place) = Arc::clone(&self.places).acquire_owned().await {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    self.events.accept_failed(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let caller = identify(&stream).map_err(|why| {
                self.local.count_unidentified();
                let why = chain(&why);
                self.events.caller_unidentified(&why);
                why
            });
            let Some(share) = self.shares.take(caller.as_ref().ok()) else {
                self.local.count_closed();
                self.events
                    .caller_over_share(caller.as_ref().map_or("nobody", Caller::as_str));
                continue;
            };
            let visit = Visit {
                stream,
                caller: WhoAsks(caller),
                _holds: (share, place),
            };
            if visits.send(Ok(visit)).await.is_err() {
                return;
            }
        }
    }
}

/// Connections of each caller; all who are nobody share one.
#[derive(Clone, Default)]
struct Shares(Arc<Mutex<HashMap<Option<Caller>, usize>>>);

impl Shares {
    fn take(&self, caller: Option<&Caller>) -> Option<Share> {
        let mut held = self.lock();
        let count = held.entry(caller.cloned()).or_default();
        (*count < ATTEST_CONNECTIONS_PER_CALLER).then(|| {
            *count += 1;
            Share(self.clone(), caller.cloned())
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Caller>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Given back when the connection ends.
struct Share(Shares, Option<Caller>);

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.0.lock();
        if let Some(count) = held.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.1);
            }
        }
    }
}

/// Whose connection it is, or why that is not known.
#[derive(Clone)]
struct WhoAsks(Result<Caller, String>);

/// One connection.
struct Visit {
    stream: UnixStream,
    caller: WhoAsks,
    _holds: (Share, OwnedSemaphorePermit),
}

impl Connected for Visit {
    type ConnectInfo = WhoAsks;

    fn connect_info(&self) -> WhoAsks {
        self.caller.clone()
    }
}

struct Service {
    local: Local,
    events: Events,
}

#[tonic::async_trait]
impl Attestation for Service {
    async fn attest(
        &self,
        request: Request<AttestRequest>,
    ) -> Result<Response<AttestResponse>, Status> {
        let caller = caller_of(&request)?;
        let nonce = Nonce::new(request.into_inner().nonce)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let evidence = self.local.attest(caller.clone(), nonce).await;
        let evidence = evidence.map_err(|error| {
            if let DoorError::Ask(AskError::Batch(_)) = error {
                self.events
                    .caller_over_share(&format!("{caller}: {}", chain(&error)));
            }
            status_of(&error)
        })?;
        Ok(Response::new(AttestResponse {
            evidence: evidence.encode(),
            caller: caller.to_string(),
        }))
    }

    async fn get_result(
        &self,
        request: Request<GetResultRequest>,
    ) -> Result<Response<GetResultResponse>, Status> {
        caller_of(&request)?;
        let held = self.local.result().map_err(|why| {
            Status::unavailable(format!("this node has no Attestation Result: {why}"))
        })?;
        let now: BootTime = crate::attestation::boot_time();
        Ok(Response::new(GetResultResponse {
            token: held.token().to_owned(),
            verifier: held.result().verifier().to_owned(),
            fresh_for_s: held.fresh_until().since(now).as_secs(),
        }))
    }
}

fn caller_of<T>(request: &Request<T>) -> Result<Caller, Status> {
    let who: Option<&WhoAsks> = request.extensions().get();
    match who {
        Some(WhoAsks(Ok(caller))) => Ok(caller.clone()),
        Some(WhoAsks(Err(why))) => Err(Status::permission_denied(format!(
            "kedged cannot tell who asks: {why}; ask from a process of the host or of a pod that \
             the directory knows, on Linux 6.5 or later"
        ))),
        None => Err(Status::internal("the connection has no caller")),
    }
}

fn status_of(error: &DoorError) -> Status {
    let text = chain(error);
    match error {
        DoorError::Ask(AskError::Batch(_)) => Status::resource_exhausted(text),
        _ => Status::unavailable(format!("{text}; see `kedge attest status` on the node")),
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
