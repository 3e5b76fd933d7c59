//! The server: one thread, one task per connection.

use crate::protocol::{self, HASH_LEN, NONCE_LEN, Nonce, PAYLOAD_BYTES_MAX};
use crate::report::Seen;
use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::LocalSet;

const BACKLOG: u32 = 4096;
/// Reads of the bulk stream: large enough that the server is not what is measured.
const BULK_READ_BYTES: usize = 256 * 1024;

type Shared = Rc<RefCell<Seen>>;

/// Serves until it is killed.
pub fn run(listen: SocketAddr, greet: Option<SocketAddr>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let tasks = LocalSet::new();
    let seen = Shared::default();
    tasks.block_on(&runtime, async {
        if let Some(address) = greet {
            let listener = bind(address)?;
            tokio::task::spawn_local(accept(listener, greeted));
        }
        let listener = bind(listen)?;
        accept(listener, move |stream, peer| {
            serve(stream, peer, seen.clone())
        })
        .await;
        Ok(())
    })
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    let bound = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().with_context(|| format!("listen on {address}"))
}

async fn accept<F, Served>(listener: TcpListener, serve: F)
where
    F: Fn(TcpStream, SocketAddr) -> Served,
    Served: Future<Output = Result<()>> + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let served = serve(stream, peer);
                tokio::task::spawn_local(async move {
                    if let Err(error) = served.await {
                        eprintln!("{peer}: {error:#}");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: give connections time to end.
                eprintln!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn greeted(mut stream: TcpStream, peer: SocketAddr) -> Result<()> {
    stream.write_all(protocol::GREETING).await?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let answer = format!("250 {peer} said {}\r\n", line.trim_end());
    reader.into_inner().write_all(answer.as_bytes()).await?;
    Ok(())
}

async fn serve(mut stream: TcpStream, peer: SocketAddr, seen: Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    if stream.read(&mut kind).await? == 0 {
        return Ok(());
    }
    match kind[0] {
        protocol::EXCHANGE => exchange(&mut stream, &seen).await,
        protocol::BULK => bulk(&mut stream).await,
        protocol::ECHO => echo(&mut stream).await,
        protocol::PING | protocol::HOLD => answer_and_wait(&mut stream).await,
        protocol::PEER => tell_peer(&mut stream, peer).await,
        protocol::CLIENT_ENDS_FIRST => client_ends_first(&mut stream).await,
        protocol::SERVER_ENDS_FIRST => server_ends_first(&mut stream, &seen).await,
        protocol::SERVER_RESETS => server_resets(stream).await,
        protocol::CLIENT_RESETS => client_resets(&mut stream, &seen).await,
        protocol::SILENCE => until_dead(&mut stream, &seen).await,
        protocol::REPORT => report(&mut stream, &seen).await,
        protocol::CLEAR => {
            *seen.borrow_mut() = Seen::default();
            report(&mut stream, &seen).await
        }
        other => bail!("first byte {other:#04x} means nothing"),
    }
}

async fn exchange(stream: &mut TcpStream, seen: &Shared) -> Result<()> {
    let mut nonce: Nonce = [0; NONCE_LEN];
    stream.read_exact(&mut nonce).await?;
    let length = stream.read_u32().await?;
    ensure!(
        length <= PAYLOAD_BYTES_MAX,
        "payload of {length} bytes is too long"
    );
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    let mut hash = [0; HASH_LEN];
    stream.read_exact(&mut hash).await?;
    seen.borrow_mut()
        .exchange(nonce, hash == protocol::hash(&payload));
    // Other bytes than the client's, of another length: an echo would hide a mix-up of directions.
    let answer = protocol::payload(
        &protocol::hash(&nonce)[..NONCE_LEN].try_into()?,
        payload.len() / 2 + 1,
    );
    stream.write_all(&protocol::encode(&nonce, &answer)).await?;
    wait_for_end(stream).await
}

async fn bulk(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = vec![0; BULK_READ_BYTES];
    let mut total = 0_u64;
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => total += count as u64,
        }
    }
    stream.write_u64(total).await?;
    Ok(())
}

async fn echo(stream: &mut TcpStream) -> Result<()> {
    let size = stream.read_u32().await?;
    ensure!(
        size <= PAYLOAD_BYTES_MAX,
        "request of {size} bytes is too long"
    );
    let mut request = vec![0; size as usize];
    while stream.read_exact(&mut request).await.is_ok() {
        stream.write_all(&request).await?;
    }
    Ok(())
}

async fn answer_and_wait(stream: &mut TcpStream) -> Result<()> {
    stream.write_u8(b'.').await?;
    wait_for_end(stream).await
}

/// Lets the client close first, whose side then has the TIME_WAIT.
async fn wait_for_end(stream: &mut TcpStream) -> Result<()> {
    // The client may also reset here: it has all that it wanted.
    let _ = stream.read(&mut [0]).await;
    Ok(())
}

async fn tell_peer(stream: &mut TcpStream, accepted: SocketAddr) -> Result<()> {
    loop {
        let asked = stream.peer_addr()?;
        let line = format!("{accepted} {asked}\n");
        stream.write_all(line.as_bytes()).await?;
        if stream.read(&mut [0]).await? == 0 {
            return Ok(());
        }
    }
}

async fn client_ends_first(stream: &mut TcpStream) -> Result<()> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await?;
    stream.write_all(&protocol::hash(&bytes)).await?;
    Ok(())
}

async fn server_ends_first(stream: &mut TcpStream, seen: &Shared) -> Result<()> {
    let bytes = protocol::payload(&[7; NONCE_LEN], protocol::SERVER_FIRST_BYTES);
    stream.write_all(&bytes).await?;
    stream.shutdown().await?;
    let mut late = Vec::new();
    stream.read_to_end(&mut late).await?;
    seen.borrow_mut().late_bytes(late.len());
    Ok(())
}

async fn server_resets(mut stream: TcpStream) -> Result<()> {
    stream.write_u8(b'.').await?;
    // Long enough for the byte to be read before the reset would discard it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

async fn client_resets(stream: &mut TcpStream, seen: &Shared) -> Result<()> {
    stream.write_u8(b'.').await?;
    let ended = stream.read(&mut [0]).await;
    seen.borrow_mut().end_of_reset_connection(ended.is_err());
    Ok(())
}

/// Waits or sends as the client wants, until the connection dies.
async fn until_dead(stream: &mut TcpStream, seen: &Shared) -> Result<()> {
    let mut traffic = [0];
    stream.read_exact(&mut traffic).await?;
    stream.write_u8(b'.').await?;
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let moved = match traffic[0] {
            protocol::SILENCE_DOWN => stream.write(&chunk).await,
            protocol::SILENCE_HELD => error_of(stream).await.map(|()| 1),
            _ => stream.read(&mut chunk).await,
        };
        match moved {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(_) => {
                seen.borrow_mut().death();
                return Ok(());
            }
        }
    }
}

/// Waits for it and reads nothing.
async fn error_of(stream: &TcpStream) -> io::Result<()> {
    stream.ready(Interest::ERROR).await?;
    stream.take_error()?.map_or(Ok(()), Err)
}

async fn report(stream: &mut TcpStream, seen: &Shared) -> Result<()> {
    let line = serde_json::to_string(&seen.borrow().report())?;
    stream.write_all(line.as_bytes()).await?;
    Ok(())
}
