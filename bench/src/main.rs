//! kedge-load: one server and many clients that check every byte, and that measure without being
//! what is measured. Results are one JSON object per line on standard output.
//!
//! A connection's first byte says what it is for; see [`protocol`].

#![forbid(unsafe_code)]

mod churn;
mod connect;
mod exchange;
mod flood;
mod forge;
mod latency;
mod newborn;
mod path;
mod pending;
mod probes;
mod protocol;
mod report;
mod server;
mod shapes;
mod silence;
mod sockets;
mod sustained;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use std::net::{SocketAddr, SocketAddrV4};

#[derive(Parser)]
#[command(name = "kedge-load", version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve every client below; --greet is a port on which the server speaks first.
    Server {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        greet: Option<SocketAddr>,
    },
    /// Connections one after the other, each with a nonce and random bytes both ways.
    Seq(Exchange),
    /// The same, all open at once.
    Concurrent(Exchange),
    /// Whom the server believes to talk to.
    Peer {
        server: SocketAddr,
        /// Ask again, over the same connection, when standard input has ended.
        #[arg(long)]
        again: bool,
    },
    /// Let the server speak first.
    Greet { server: SocketAddr },
    /// End one direction, then use the other: first the client's, then the server's.
    HalfClose { server: SocketAddr },
    /// Reset a connection: first by the server, then by the client.
    Reset { server: SocketAddr },
    /// One open connection: a request every 100 ms until standard input ends.
    Steady { server: SocketAddr },
    /// Short connections, each checked at both ends, until standard input ends.
    Churn {
        server: SocketAddr,
        #[arg(long, default_value_t = 2)]
        clients: usize,
    },
    /// What the server has seen so far; `--clear` begins anew.
    Report {
        server: SocketAddr,
        #[arg(long)]
        clear: bool,
    },
    /// One stream upwards for some seconds.
    Bulk {
        server: SocketAddr,
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// Requests and answers over one connection.
    Rr {
        server: SocketAddr,
        #[arg(long, default_value_t = 1024)]
        size: u32,
        #[arg(long, default_value_t = 5000)]
        count: usize,
    },
    /// Connect, send one byte, receive one byte, close.
    Connect {
        server: SocketAddr,
        #[arg(long, default_value_t = 1)]
        clients: usize,
        #[arg(long, default_value_t = 500)]
        count: usize,
    },
    /// Hold connections open, without a byte, until standard input ends.
    Idle {
        server: SocketAddr,
        connections: usize,
    },
    /// One connection until its peer is dead: says when it opened, then when and how it ended.
    Silence(silence::Request),
    /// One connection that is not to open: says when and how that ended.
    SilenceOpening(silence::Request),
    /// Play one of the shapes many times, as a client: `shapes.rs` has their names.
    Shapes(shapes::Request),
    /// Serve every shape, from this port on.
    ShapesServer {
        engine: shapes::Engine,
        listen: SocketAddr,
    },
    /// What a server of shapes has seen since it was asked last.
    ShapesReport { server: SocketAddr },
    /// One connection of a server of shapes, on standard input.
    #[command(hide = true)]
    ShapesChild { shape: String },
    /// One connection in an unusual way, and all that its application sees.
    Socket(sockets::Request),
    /// Serve such connections; each is told on standard output too.
    SocketServer(sockets::Service),
    /// One datagram there and one back.
    Datagram { server: SocketAddr },
    /// Answer datagrams with their sender's address.
    DatagramServer { listen: SocketAddr },
    /// Make a cgroup, join it and connect at once; then see what becomes of the connection.
    Newborn {
        cgroup: std::path::PathBuf,
        server: SocketAddr,
    },
    /// Send segments from a raw socket, as if somebody else had.
    Forge {
        source: SocketAddrV4,
        destination: SocketAddrV4,
    },
    /// Knock at a daemon's peer port without being a daemon.
    Hostile {
        server: SocketAddr,
        stranger: flood::Stranger,
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        #[arg(long, default_value_t = 2_000)]
        at_once: usize,
    },
    /// Begin connections without waiting for any; then say what became of them.
    Flood(pending::Request),
    /// Be the path between two daemons, and a bad one.
    Path(path::Path),
    /// Use a core without end; run it at idle priority to keep the core awake.
    Spin,
}

/// What `seq` and `concurrent` have in common.
#[derive(Args)]
pub struct Exchange {
    pub server: SocketAddr,
    pub connections: usize,
    /// Random bytes each way: up to this many.
    #[arg(long, default_value_t = 8192)]
    pub bytes_max: u32,
}

fn main() -> Result<()> {
    allow_many_descriptors()?;
    match Arguments::parse().verb {
        Verb::Server { listen, greet } => server::run(listen, greet),
        Verb::Seq(exchange) => print(&exchange::sequential(&exchange)?),
        Verb::Concurrent(exchange) => print(&exchange::concurrent(&exchange)?),
        Verb::Peer {
            server,
            again: false,
        } => print(&probes::peer(server)?),
        Verb::Peer { server, .. } => probes::peer_again(server),
        Verb::Greet { server } => print(&probes::greet(server)?),
        Verb::HalfClose { server } => print(&probes::half_close(server)?),
        Verb::Reset { server } => print(&probes::reset(server)?),
        Verb::Steady { server } => print(&sustained::steady(server)?),
        Verb::Churn { server, clients } => print(&churn::churn(server, clients)?),
        Verb::Report { server, clear } => print(&probes::report(server, clear)?),
        Verb::Bulk { server, seconds } => print(&sustained::bulk(server, seconds)?),
        Verb::Rr {
            server,
            size,
            count,
        } => print(&latency::request_response(server, size, count)?),
        Verb::Connect {
            server,
            clients,
            count,
        } => print(&connect::measure(server, clients, count)?),
        Verb::Idle {
            server,
            connections,
        } => sustained::idle(server, connections),
        Verb::Silence(request) => silence::wait(&request),
        Verb::SilenceOpening(request) => silence::wait_for_opening(&request),
        Verb::Shapes(request) => print(&shapes::run(request)?),
        Verb::ShapesServer { engine, listen } => shapes::serve(engine, listen),
        Verb::ShapesReport { server } => print(&shapes::report(server)?),
        Verb::ShapesChild { shape } => shapes::serve_inherited(&shape),
        Verb::Socket(request) => print(&sockets::run(&request)?),
        Verb::SocketServer(service) => sockets::serve(&service),
        Verb::Datagram { server } => print(&sockets::ask_datagram(server)?),
        Verb::DatagramServer { listen } => sockets::serve_datagrams(listen),
        Verb::Newborn { cgroup, server } => print(&newborn::be_born(&cgroup, server)?),
        Verb::Forge {
            source,
            destination,
        } => print(&forge::forge(source, destination)?),
        Verb::Hostile {
            server,
            stranger,
            connections,
            at_once,
        } => print(&flood::run(server, stranger, connections, at_once)?),
        Verb::Flood(request) => print(&pending::flood(&request)?),
        Verb::Path(path) => path::run(path),
        Verb::Spin => spin(),
    }
}

/// One result line.
pub fn print(result: &impl Serialize) -> Result<()> {
    println!(
        "{}",
        serde_json::to_string(result).context("write the result as JSON")?
    );
    Ok(())
}

/// Thousands of idle connections need as many descriptors as this machine allows.
fn allow_many_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit NOFILE")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("setrlimit NOFILE")
}

fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
