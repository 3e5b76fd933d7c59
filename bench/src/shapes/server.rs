//! Every shape at a port of its own, as a server of one engine, and what it has seen.

use super::engine::{Engine, LIMIT, Wire, listen};
use super::play::{Ended, Side, Silent, is_cut, play};
use super::script::Shape;
use crate::protocol::{NONCE_LEN, Nonce, hex};
use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::rand;
use serde::Serialize;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use tokio::task::{LocalSet, spawn_local};

/// Behind the shapes' ports: whoever connects there is told what was seen, which is forgotten.
const REPORT: u16 = 50;

#[derive(Default, Serialize)]
struct Seen {
    good: usize,
    /// Ended by an error of the connection, with right bytes before it.
    cut: usize,
    /// Ended in order without a byte.
    silent: usize,
    bad: usize,
    first_bad: Option<String>,
    /// Streams whose nonce had been seen before: a connection delivered twice.
    repeated: usize,
}

/// What was seen since somebody asked, and every nonce ever.
#[derive(Default)]
struct Pages {
    seen: BTreeMap<&'static str, Seen>,
    nonces: HashSet<Nonce>,
}

type Book = Arc<Mutex<Pages>>;

fn note(book: &Book, shape: &'static Shape, end: Ended) {
    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
    let is_new = end.nonce.is_none_or(|nonce| book.nonces.insert(nonce));
    let seen = book.seen.entry(shape.name).or_default();
    match end.result {
        _ if !is_new => seen.repeated += 1,
        Ok(()) => seen.good += 1,
        Err(error) if is_cut(&error) => seen.cut += 1,
        Err(error) if error.is::<Silent>() => seen.silent += 1,
        Err(error) => {
            seen.bad += 1;
            seen.first_bad.get_or_insert_with(|| format!("{error:#}"));
        }
    }
}

/// Serves until it is killed.
pub fn serve(engine: Engine, base: SocketAddr) -> Result<()> {
    let book = Book::default();
    let at = |offset: u16| SocketAddr::new(base.ip(), base.port() + offset);
    let reports = TcpListener::bind(at(REPORT)).context("listen for questions")?;
    thread::spawn({
        let book = Arc::clone(&book);
        move || answer_questions(&reports, &book)
    });
    let mut stages = Vec::new();
    for (index, shape) in Shape::all().filter(|(_, shape)| engine.can_play(shape, shape.server)) {
        stages.push((shape, listen(at(index), shape)?));
    }
    match engine {
        Engine::Blocking | Engine::Inherited => serve_by_threads(engine, stages, &book),
        Engine::Uring => tokio_uring::start(serve_by_tasks(engine, stages, book)),
        Engine::Edge => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            LocalSet::new().block_on(&runtime, serve_by_tasks(engine, stages, book))
        }
    }
}

type Stages = Vec<(&'static Shape, TcpListener)>;

async fn serve_by_tasks(engine: Engine, stages: Stages, book: Book) -> Result<()> {
    let mut accepting = Vec::new();
    for (shape, listener) in stages {
        accepting.push(spawn_local(accept(
            engine,
            shape,
            listener,
            Arc::clone(&book),
        )));
    }
    for task in accepting {
        task.await??;
    }
    Ok(())
}

async fn accept(
    engine: Engine,
    shape: &'static Shape,
    listener: TcpListener,
    book: Book,
) -> Result<()> {
    listener.set_nonblocking(engine == Engine::Edge)?;
    if engine == Engine::Uring {
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            spawn_local(play_noted(shape, Wire::Uring(stream), Arc::clone(&book)));
        }
    }
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        spawn_local(play_noted(shape, Wire::Edge(stream), Arc::clone(&book)));
    }
}

async fn play_noted(shape: &'static Shape, wire: Wire, book: Book) {
    let end = match nonce() {
        Ok(nonce) => play(shape, Side::Server, wire, nonce).await,
        Err(error) => failed(error),
    };
    note(&book, shape, end);
}

fn failed(error: anyhow::Error) -> Ended {
    Ended {
        nonce: None,
        result: Err(error),
    }
}

fn serve_by_threads(engine: Engine, stages: Stages, book: &Book) -> Result<()> {
    let mut accepting = Vec::new();
    for (shape, listener) in stages {
        let book = Arc::clone(book);
        accepting.push(thread::spawn(move || -> Result<()> {
            loop {
                let (stream, _) = listener.accept()?;
                let book = Arc::clone(&book);
                thread::spawn(move || {
                    let end = match engine {
                        Engine::Inherited => in_a_child(shape, stream).map(|nonce| Ended {
                            nonce: Some(nonce),
                            result: Ok(()),
                        }),
                        _ => play_blocking(shape, stream),
                    };
                    note(&book, shape, end.unwrap_or_else(failed));
                });
            }
        }));
    }
    for thread in accepting {
        thread.join().expect("an acceptor does not panic")?;
    }
    Ok(())
}

fn play_blocking(shape: &Shape, stream: TcpStream) -> Result<Ended> {
    stream.set_read_timeout(Some(*LIMIT))?;
    stream.set_write_timeout(Some(*LIMIT))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let wire = Wire::Blocking(RefCell::new(stream));
    Ok(runtime.block_on(play(shape, Side::Server, wire, nonce()?)))
}

/// Forks after accept(): the child has the socket as its standard input, as inetd does it, and
/// says on its standard output how it went.
fn in_a_child(shape: &Shape, stream: TcpStream) -> Result<Nonce> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["shapes-child", shape.name])
        .stdin(Stdio::from(OwnedFd::from(stream)))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let told = child.stdout.take().context("the child's pipe")?;
    BufReader::new(told).read_line(&mut line)?;
    child.wait()?;
    let hex = line.trim();
    ensure!(hex.len() == 2 * NONCE_LEN, "{hex}");
    let mut nonce = [0; NONCE_LEN];
    for (byte, digits) in nonce.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits)?, 16)?;
    }
    Ok(nonce)
}

/// The child of [`in_a_child`].
pub fn serve_inherited(name: &str) -> Result<()> {
    use std::os::fd::AsFd;
    let Some((_, shape)) = Shape::named(name) else {
        bail!("there is no shape {name:?}");
    };
    let stream = TcpStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    // The copy is the connection now; with the original open, closing would end nothing.
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(null)?;
    let end = play_blocking(shape, stream)?;
    match (end.nonce, end.result) {
        (Some(nonce), Ok(())) => println!("{}", hex(&nonce)),
        (_, Err(error)) => println!("child: {error:#}"),
        (None, Ok(())) => println!("child: no nonce"),
    }
    Ok(())
}

fn answer_questions(listener: &TcpListener, book: &Book) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let seen = std::mem::take(&mut book.lock().unwrap_or_else(PoisonError::into_inner).seen);
        // Whoever asked and went away gets no answer.
        let _ = serde_json::to_string(&seen).map(|text| stream.write_all(text.as_bytes()));
    }
}

/// Asks a server what it has seen since it was asked last.
pub fn report(base: SocketAddr) -> Result<Value> {
    let mut stream = TcpStream::connect(SocketAddr::new(base.ip(), base.port() + REPORT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    serde_json::from_str(&text).context("parse the report")
}

fn nonce() -> Result<Nonce> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce)
        .ok()
        .context("random bytes for the nonce")?;
    Ok(nonce)
}
