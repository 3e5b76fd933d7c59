//! What the two halves of a lab tell each other: plain TCP beside kedge, idle while the wire oracle
//! listens.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::Node;
use xtask::shell::wait_for;

const PORT: u16 = 9_000;
/// Until the other machine has booted.
const BOOT: Duration = Duration::from_secs(120);
/// For whatever the other half does before it says something.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

pub struct Meeting(BufReader<TcpStream>);

impl Meeting {
    /// Node a waits for node b.
    ///
    /// # Errors
    /// When the other one does not come.
    pub fn begin(lab: &Lab, node: Node) -> Result<Self> {
        let at = SocketAddr::new(Node::A.v4().into(), PORT);
        let stream = match node {
            Node::A => lab.within(node, || accept(at))??,
            Node::B => wait_for("the other machine", BOOT, || {
                let stream = lab.within(node, || TcpStream::connect(at))?;
                Ok(Some(stream?))
            })?,
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Says `text`, and hears what the other one says in its place.
    ///
    /// # Errors
    /// When the other one is gone.
    pub fn exchange(&mut self, text: &str) -> Result<String> {
        let line = serde_json::to_string(text)? + "\n";
        self.0.get_mut().write_all(line.as_bytes())?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the other machine is gone");
        serde_json::from_str(&line).with_context(|| format!("the other machine said {line}"))
    }
}

fn accept(at: SocketAddr) -> Result<TcpStream> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    let (stream, _) = wait_for("the other machine", BOOT, || Ok(Some(listener.accept()?)))?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}
