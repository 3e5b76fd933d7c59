//! Two flows on real sockets, and how many ways there are for their bytes.

use kedge_daemon::dataplane::buffer::{FRONT, Pipes, Pool};
use kedge_daemon::dataplane::continuation::{Continuations, Continuing, Dial, Redial, Untaken};
use kedge_daemon::dataplane::flow::{Flow, Records};
use kedge_daemon::dataplane::half::{Broken, Open, Seal, Turn};
use kedge_daemon::dataplane::kernel_records::pipes_hold_several;
use kedge_daemon::dataplane::registry::Meter;
use kedge_daemon::dataplane::rounds::Rounds;
use kedge_link::testing::LinkInputs;
use kedge_link::wire::{Answer, Continuation, Record0};
use kedge_link::{ContinuationError, ContinuationKey, FlowKeys, Handle, ProofKind, Role};
use kedge_model::{OriginalDst, SourceAddr, Suite};
use kedge_record::{ContentType, HEADER_LEN, Limits, Rekey, Sealer, TrafficSecret, Unsealer};
use kedge_sys::canary::{self, Canary};
use kedge_sys::patience::Patience;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;

pub type Ended = JoinHandle<Result<(), Broken>>;
pub type Driven = (Ended, Rc<Meter>);

/// Both workloads, and how both flows end.
pub struct Ends {
    pub client: TcpStream,
    pub server: TcpStream,
    pub opener: Ended,
    pub acceptor: Ended,
    pub pool: Pool,
    pub meters: [Rc<Meter>; 2],
    /// Where the acceptor's flow awaits further carriers, and who brings them.
    pub flows: Continuations,
    pub taking: JoinHandle<()>,
}

impl Ends {
    /// Once bytes have gone both ways: they went on the path that the test is about.
    pub fn took(&self, path: Path) {
        let kernel = path.records != Records::Userspace;
        for meter in &self.meters {
            assert_eq!(meter.sent_by_kernel.load(Relaxed), kernel, "{path:?}");
            assert_eq!(meter.received_by_kernel.load(Relaxed), kernel, "{path:?}");
        }
    }
}

/// Both ends send at once what they have, as carriers do.
pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("bound");
    let (dialled, accepted) = tokio::join!(dial(address), listener.accept());
    let (dialled, (accepted, _)) = (dialled.expect("connect"), accepted.expect("accept"));
    accepted.set_nodelay(true).expect("setsockopt");
    (dialled, accepted)
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let carrier = TcpStream::connect(address).await?;
    carrier.set_nodelay(true)?;
    Ok(carrier)
}

/// How the flows of a test carry their bytes.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub records: Records,
    pub suite: Suite,
    pub limits: Limits,
}

/// A key lasts for some ten records, in the kernel too, which is given so many at once.
pub const CONTINUED: Limits = Limits {
    records_per_key: 32,
    update_margin: 20,
    records_per_update_min: 8,
    rekey: Rekey::Continue,
};

/// All that there are on this kernel.
pub fn paths() -> Vec<Path> {
    let kernel = Suite::ALL.into_iter().filter(|suite| kernel_has(*suite));
    let kernel = kernel.map(|suite| (Records::AT_ONCE, suite));
    let ours = Suite::ALL.map(|suite| (Records::Userspace, suite));
    let all: Vec<_> = ours.into_iter().chain(kernel).collect();
    let with = |limits| {
        let path = move |&(records, suite)| Path {
            records,
            suite,
            limits,
        };
        all.iter().map(path)
    };
    with(Limits::PROTOCOL).chain(with(CONTINUED)).collect()
}

/// In one suite, since an emulated machine takes its time; in the others every other test is played
/// on such flows too.
pub fn continued_paths() -> impl Iterator<Item = Path> {
    let continued =
        |path: &Path| path.limits.rekey == Rekey::Continue && path.suite == Suite::Aes256Gcm;
    paths().into_iter().filter(continued)
}

pub fn kernel_has(suite: Suite) -> bool {
    sings(match suite {
        Suite::Aes128Gcm => "kTLS: AES-128-GCM",
        Suite::Aes256Gcm => "kTLS: AES-256-GCM",
        Suite::ChaCha20Poly1305 => "kTLS: ChaCha20-Poly1305",
    })
}

pub fn sings(name: &str) -> bool {
    canaries()
        .iter()
        .any(|canary| canary.name == name && canary.works)
}

pub fn canaries() -> &'static [Canary] {
    static CANARIES: OnceLock<Vec<Canary>> = OnceLock::new();
    CANARIES.get_or_init(canary::sing)
}

impl Path {
    /// Flow number 1 of a link, as each end has it.
    pub fn keys(self) -> FlowKeys {
        let now = std::time::Instant::now();
        let half = LinkInputs::fixed(self.suite).half(Role::TlsClient, now);
        let mut outbound = half.outbound;
        let record0 = Record0 {
            source: Handle(1),
            source_proof: ProofKind::AssertedByNode,
            destination: Handle(2),
            source_address: SourceAddr::new("10.1.0.2:40000".parse().expect("literal")),
            destination_address: OriginalDst::new("10.2.0.3:80".parse().expect("literal")),
            destination_instance: b"pod-7".to_vec(),
        };
        let flow = outbound.open_flow(now).expect("numbers");
        flow.seal_record0(&record0, &mut Vec::new())
    }

    pub fn sealer(self, secret: TrafficSecret) -> Sealer {
        Sealer::with_limits(secret, self.limits)
    }

    pub fn unsealer(self, secret: TrafficSecret) -> Unsealer {
        Unsealer::with_limits(secret, self.limits)
    }

    /// How each end of a flow gets further carriers: the opener's dials are taken as by the workers
    /// of the acceptor's daemon.
    pub async fn continuing(
        self,
        ours: ContinuationKey,
        theirs: ContinuationKey,
        peer: Peer,
    ) -> Continued {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("bound");
        let dial: Dial = Box::new(move || Box::pin(dial(address)));
        let patience = Patience::OURS;
        let flows = Continuations::default();
        let awaited = flows.enter(theirs);
        let taking = spawn_local(take_continuations(listener, flows.clone(), peer));
        let continues = self.limits.rekey == Rekey::Continue;
        let redial = Redial {
            key: ours,
            dial,
            patience,
        };
        Continued {
            opener: continues.then(|| Continuing::Opener(Rc::new(redial))),
            acceptor: continues.then(|| Continuing::Acceptor(Rc::new(awaited))),
            flows,
            taking,
        }
    }
}

pub struct Continued {
    pub opener: Option<Continuing>,
    pub acceptor: Option<Continuing>,
    pub flows: Continuations,
    pub taking: JoinHandle<()>,
}

/// What the acceptor's daemon does with the carriers of its flow.
#[derive(Clone, Copy)]
pub enum Peer {
    Honest,
    Silent,
    /// Without the flow's key.
    Liar,
}

/// What arrives goes to its flow, once: whoever has recorded it and sends it again is refused.
pub async fn take_continuations(listener: TcpListener, flows: Continuations, peer: Peer) {
    let mut kept = Vec::new();
    loop {
        let (mut carrier, _) = listener.accept().await.expect("accept");
        carrier.set_nodelay(true).expect("setsockopt");
        if !matches!(peer, Peer::Honest) {
            if matches!(peer, Peer::Liar) {
                carrier.write_all(&[0; 16]).await.expect("write");
            }
            kept.push(carrier);
            continue;
        }
        let mut bytes = [0; Continuation::LEN];
        carrier.read_exact(&mut bytes).await.expect("whole");
        let continuation = Continuation::parse(&bytes).expect("our own");
        let carrier = carrier.into_std().expect("a socket");
        let replay = carrier.try_clone().expect("a descriptor");
        if flows.take(carrier, &continuation).is_ok() {
            let generation = continuation.point.generation;
            let refused = Untaken::Refused(ContinuationError::Replayed(generation));
            assert_eq!(flows.take(replay, &continuation), Err(refused));
        }
    }
}

/// As this kernel lets a worker use them.
pub fn pipes() -> Pipes {
    Pipes::new(pipes_hold_several(canaries()))
}

pub fn drive(pool: &Pool, pipes: &Pipes, mut flow: Flow) -> Driven {
    let (pool, pipes, meter) = (pool.clone(), pipes.clone(), Rc::new(Meter::default()));
    let ended = spawn_local({
        let meter = Rc::clone(&meter);
        async move {
            let turn = Turn {
                pool: &pool,
                pipes: &pipes,
                rounds: &Rounds::default(),
                meter: &meter,
                now_s: 0,
            };
            let ended = poll_fn(|cx| flow.poll(cx, &turn)).await;
            if let Err(broken) = &ended {
                flow.abort(broken);
            }
            ended
        }
    });
    (ended, meter)
}

pub async fn sealed_answer(pool: &Pool, sealer: Sealer, answer: &Answer) -> Seal {
    let mut sealer = sealer;
    let mut content = Vec::new();
    answer.encode(&mut content);
    let mut buffer = pool.take().await;
    let slot = &mut buffer[FRONT..];
    let len = seal(&mut sealer, slot, &content);
    Seal::new(sealer, true).with_sealed(buffer, FRONT..FRONT + len)
}

/// One record of application data at the beginning of `slot`; says how long it is.
pub fn seal(sealer: &mut Sealer, slot: &mut [u8], content: &[u8]) -> usize {
    slot[HEADER_LEN..][..content.len()].copy_from_slice(content);
    let sealed = sealer.seal(ContentType::ApplicationData, slot, content.len());
    sealed.expect("room and budget")
}

pub async fn ends_with(path: Path, answer: Answer, peer: Peer) -> Ends {
    ends_among(path, answer, peer, &pipes()).await
}

/// Of flows that share a worker's pipes.
pub async fn ends_among(path: Path, answer: Answer, peer: Peer, pipes: &Pipes) -> Ends {
    let pool = Pool::default();
    let (client, near) = pair().await;
    let (carrier, accepted) = pair().await;
    let (delivering, server) = pair().await;
    let (ours, theirs) = (path.keys(), path.keys());
    let continued = path
        .continuing(ours.continuation, theirs.continuation, peer)
        .await;
    let out = Seal::new(path.sealer(ours.opener), false);
    let back = Open::awaiting_answer(path.unsealer(ours.acceptor));
    let flow = Flow::opener(near, carrier, out, back)
        .with_records(path.records)
        .with_continuing(continued.opener);
    let (opener, ours) = drive(&pool, pipes, flow);
    let out = sealed_answer(&pool, path.sealer(theirs.acceptor), &answer).await;
    let nothing = pool.take().await;
    let back = Open::with_received(path.unsealer(theirs.opener), nothing, 0..0);
    let flow = Flow::acceptor(delivering, accepted, out, back)
        .with_records(path.records)
        .with_continuing(continued.acceptor);
    let (acceptor, theirs) = drive(&pool, pipes, flow);
    Ends {
        client,
        server,
        opener,
        acceptor,
        pool,
        meters: [ours, theirs],
        flows: continued.flows,
        taking: continued.taking,
    }
}

pub async fn ends(path: Path) -> Ends {
    ends_with(path, Answer::Accepted, Peer::Honest).await
}

pub fn run(test: impl AsyncFn(Path)) {
    for path in paths() {
        run_on(path, &test);
    }
}

pub fn run_on(path: Path, test: &impl AsyncFn(Path)) {
    println!("{path:?}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), test(path));
}

/// Bytes that differ everywhere, so that a lost, doubled or moved one shows.
pub fn pattern(len: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(len)
        .collect()
}

pub async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("a clean end");
    bytes
}

/// Sends and ends its direction, while it reads to the end of the other.
pub async fn transfer(stream: TcpStream, send: Vec<u8>) -> Vec<u8> {
    let (mut read, mut write) = stream.into_split();
    let sending = spawn_local(async move {
        write.write_all(&send).await.expect("write");
        write.shutdown().await.expect("shutdown");
    });
    let mut got = Vec::new();
    read.read_to_end(&mut got).await.expect("a clean end");
    sending.await.expect("sent");
    got
}

/// Writes the chunk again and again until nothing more is taken; says how many bytes that were.
pub async fn fill(stream: &TcpStream, chunk: &[u8]) -> usize {
    let mut sent = 0;
    let write = |sent: usize| poll_write(stream, &chunk[sent % chunk.len()..]);
    while let Ok(written) = timeout(Duration::from_millis(300), write(sent)).await {
        sent += written;
        assert!(sent < 256 << 20, "the flow swallows bytes without end");
    }
    sent
}

/// Reads what was written by [`fill`].
pub async fn take(stream: &mut TcpStream, chunk: &[u8], sent: usize) {
    let mut got = vec![0; sent];
    let read = stream.read_exact(&mut got).await;
    read.expect("every byte that was taken");
    let mut parts = got.chunks(chunk.len());
    assert!(parts.all(|part| part == &chunk[..part.len()]));
}

async fn poll_write(stream: &TcpStream, bytes: &[u8]) -> usize {
    loop {
        stream.writable().await.expect("open");
        match stream.try_write(bytes) {
            Ok(written) => return written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}
