//! What records cost on this machine, sealed and opened by us and by the kernel. Which is cheaper
//! depends on the processor, the kernel and its mitigations, so it is measured at start: the
//! processor's time of one thread that is both ends of two flows on loopback.
//!
//! ```text
//!   client ──[ opener Flow ]══ carrier, on loopback ══[ acceptor Flow ]── server     x 2:
//!   records of our own, and the kernel's, in turns; the cheapest turn of each counts
//! ```

use crate::dataplane::buffer::{Pipes, Pool};
use crate::dataplane::flow::{Flow, Records};
use crate::dataplane::half::{Open, Seal, Turn};
use crate::dataplane::registry::Meter;
use crate::dataplane::rounds::Rounds;
use crate::limits::{
    CALIBRATION_BULK, CALIBRATION_QUESTIONS, CALIBRATION_ROUNDS, CALIBRATION_TIME,
};
use kedge_model::Suite;
use kedge_record::{Sealer, TrafficSecret, Unsealer};
use kedge_sys::process::thread_time;
use kedge_sys::socket::{Dial, listen};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

/// What the kernel's records cost, in per cent of what ours do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// A byte of a stream that is never short of bytes.
    pub bulk: u32,
    /// A question and an answer of 1 KiB.
    pub small: u32,
}

/// Measures a suite whose records this kernel has, on a thread of its own. For `hold_several` see
/// [`Pipes::new`].
///
/// # Errors
/// Of the sockets; when the kernel does not take the records over; when it takes longer than
/// `limit`.
pub fn calibrate(suite: Suite, hold_several: bool, limit: Duration) -> io::Result<Costs> {
    let measure = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        LocalSet::new().block_on(&runtime, async {
            let costs = timeout(limit, costs(suite, hold_several)).await;
            costs.unwrap_or_else(|_| {
                Err(io::Error::other(format!(
                    "no end after {} ms",
                    limit.as_millis()
                )))
            })
        })
    };
    let thread = std::thread::Builder::new().name("calibration".to_owned());
    thread
        .spawn(measure)?
        .join()
        .map_err(|_| io::Error::other("it panicked"))?
}

async fn costs(suite: Suite, hold_several: bool) -> io::Result<Costs> {
    let until = Instant::now() + CALIBRATION_TIME;
    let pipes = Pipes::new(hold_several);
    let mut ours = Track::lay(suite, Records::Userspace, &pipes).await?;
    let mut kernels = Track::lay(suite, Records::AT_ONCE, &pipes).await?;
    let (mut of_ours, mut of_kernels) = (Spent::MAX, Spent::MAX);
    for round in 0..CALIBRATION_ROUNDS {
        of_ours.improve(ours.run().await?);
        of_kernels.improve(kernels.run().await?);
        if round > 0 && Instant::now() > until {
            break;
        }
    }
    Ok(Costs {
        bulk: percent(of_kernels.bulk, of_ours.bulk),
        small: percent(of_kernels.small, of_ours.small),
    })
}

fn percent(part: Duration, whole: Duration) -> u32 {
    let percent = part.as_nanos() * 100 / whole.as_nanos().max(1);
    u32::try_from(percent).unwrap_or(u32::MAX)
}

/// The thread's time for one turn of each kind.
struct Spent {
    bulk: Duration,
    small: Duration,
}

impl Spent {
    const MAX: Self = Self {
        bulk: Duration::MAX,
        small: Duration::MAX,
    };

    fn improve(&mut self, turn: Self) {
        self.bulk = self.bulk.min(turn.bulk);
        self.small = self.small.min(turn.small);
    }
}

/// Two flows in a row, and both workloads.
struct Track {
    client: TcpStream,
    server: TcpStream,
    /// What is sent, and room for what arrives.
    bytes: Vec<u8>,
}

impl Track {
    /// The first bytes both ways have been carried when this returns, and so the kernel has its
    /// keys.
    async fn lay(suite: Suite, records: Records, pipes: &Pipes) -> io::Result<Self> {
        let (client, near) = pair().await?;
        let (carrier, accepted) = pair().await?;
        let (delivering, server) = pair().await?;
        let pool = Pool::default();
        let (out, out_opened) = direction(suite, &pool, false).await;
        let (back, back_opened) = direction(suite, &pool, true).await;
        let flow = Flow::opener(near, carrier, out, back_opened);
        let opener = drive(&pool, pipes, flow.with_records(records));
        let flow = Flow::acceptor(delivering, accepted, back, out_opened);
        let acceptor = drive(&pool, pipes, flow.with_records(records));
        let mut track = Self {
            client,
            server,
            bytes: vec![0; 2 * CALIBRATION_BULK],
        };
        track.run().await?;
        let by_kernel = |meter: &Meter| {
            meter.sent_by_kernel.load(Relaxed) && meter.received_by_kernel.load(Relaxed)
        };
        if records != Records::Userspace && !(by_kernel(&opener) && by_kernel(&acceptor)) {
            return Err(io::Error::other(
                "the kernel does not take the records over",
            ));
        }
        Ok(track)
    }

    async fn run(&mut self) -> io::Result<Spent> {
        let began = thread_time()?;
        for _ in 0..CALIBRATION_QUESTIONS {
            let mut question = [0; 1_024];
            self.client.write_all(&question).await?;
            self.server.read_exact(&mut question).await?;
            self.server.write_all(&question).await?;
            self.client.read_exact(&mut question).await?;
        }
        let between = thread_time()?;
        let (stream, taken) = self.bytes.split_at_mut(CALIBRATION_BULK);
        let sent = self.client.write_all(stream);
        let (sent, received) = tokio::join!(sent, self.server.read_exact(taken));
        sent.and(received.map(drop))?;
        Ok(Spent {
            small: between - began,
            bulk: thread_time()? - between,
        })
    }
}

/// A connection as the dataplane makes them.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let listener = TcpListener::from_std(listener)?;
    let dialled = TcpStream::from_std(Dial::new(listener.local_addr()?)?.start()?)?;
    let (accepted, _) = listener.accept().await?;
    dialled.writable().await?;
    Ok((dialled, accepted))
}

/// One direction's two ends, under a secret that nobody else has.
async fn direction(suite: Suite, pool: &Pool, fin: bool) -> (Seal, Open) {
    let secret: [u8; 64] = rand::random();
    let secret = || TrafficSecret::new(suite, &secret[..suite.secret_len()]);
    let nothing = pool.take().await;
    let open = Open::with_received(Unsealer::new(secret()), nothing, 0..0);
    (Seal::new(Sealer::new(secret()), fin), open)
}

fn drive(pool: &Pool, pipes: &Pipes, mut flow: Flow) -> Rc<Meter> {
    let (pool, pipes, meter) = (pool.clone(), pipes.clone(), Rc::new(Meter::default()));
    let told = Rc::clone(&meter);
    spawn_local(async move {
        let turn = Turn {
            pool: &pool,
            pipes: &pipes,
            rounds: &Rounds::default(),
            meter: &meter,
            now_s: 0,
        };
        // Whoever measures sees its own end of a flow that breaks.
        if let Err(broken) = poll_fn(|cx| flow.poll(cx, &turn)).await {
            flow.abort(&broken);
        }
    });
    told
}
