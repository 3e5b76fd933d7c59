//! Connections to a daemon's peer port from somebody who is no daemon, as many as there can be.

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde::Serialize;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

/// What a stranger says; after that it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stranger {
    /// Nothing.
    Silent,
    /// Bytes that begin nothing.
    Garbage,
    /// The first half of a carrier's opening.
    HalfOpening,
    /// A whole opening, of a link that nobody has.
    ForgedOpening,
    /// A ClientHello that a kedged would take.
    TlsHello,
}

/// How long a stranger waits before it goes.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Default, Serialize)]
pub struct Flood {
    /// Connected, and said what there was to say.
    opened: usize,
    /// No connection was made.
    failed: usize,
    first_failure: Option<String>,
    /// Ended by the daemon before the stranger lost its patience.
    closed: usize,
    seconds: f64,
}

/// Opens `connections` of them, up to `at_once` at a time.
pub fn run(
    server: SocketAddr,
    stranger: Stranger,
    connections: usize,
    at_once: usize,
) -> Result<Flood> {
    let words = stranger.words()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let started = Instant::now();
    let flood = Rc::new(RefCell::new(Flood::default()));
    let all = async {
        let places = Arc::new(Semaphore::new(at_once));
        for _ in 0..connections {
            let place = Arc::clone(&places).acquire_owned().await?;
            let (flood, words) = (Rc::clone(&flood), words.clone());
            spawn_local(async move {
                one(server, &words, &flood).await;
                drop(place);
            });
        }
        let at_once = u32::try_from(at_once)?;
        let _everybody = places.acquire_many(at_once).await?;
        Ok::<_, anyhow::Error>(())
    };
    LocalSet::new().block_on(&runtime, all)?;
    let mut flood = flood.take();
    flood.seconds = started.elapsed().as_secs_f64();
    Ok(flood)
}

async fn one(server: SocketAddr, words: &[u8], flood: &RefCell<Flood>) {
    let opened = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(words).await?;
        Ok::<_, std::io::Error>(stream)
    };
    match opened.await {
        Ok(mut stream) => {
            flood.borrow_mut().opened += 1;
            let end = async { while matches!(stream.read(&mut [0; 512]).await, Ok(1..)) {} };
            let closed = timeout(PATIENCE, end).await.is_ok();
            flood.borrow_mut().closed += usize::from(closed);
        }
        Err(error) => {
            let mut flood = flood.borrow_mut();
            flood.failed += 1;
            flood.first_failure.get_or_insert_with(|| error.to_string());
        }
    }
}

impl Stranger {
    fn words(self) -> Result<Vec<u8>> {
        let opening = || [b"O\x01\x00".as_slice(), &[0x5a; 40]].concat();
        Ok(match self {
            Self::Silent => Vec::new(),
            Self::Garbage => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            Self::HalfOpening => opening()[..20].to_vec(),
            Self::ForgedOpening => opening(),
            Self::TlsHello => client_hello()?,
        })
    }
}

fn client_hello() -> Result<Vec<u8>> {
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"kedge/1".to_vec()];
    let name = ServerName::try_from("kedge").context("a name")?;
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name)?.write_tls(&mut hello)?;
    Ok(hello)
}
