//! A process of its own in a cgroup and a network namespace, told by lines what to do.
//!
//! The programs know a task by its cgroup, so threads of the test are not enough. The process is
//! this same test binary, started again to run the one test [`obeys`].

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const MARK: char = '>';
const ENVIRONMENT: &str = "KEDGE_TEST_ACTOR";
/// Long enough for a busy machine, short enough for a test that waits for a dropped SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(700);

pub struct Actor {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What accept() says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The address that accept() itself returned.
    pub from: SocketAddr,
    /// getsockname().
    pub local: SocketAddr,
}

impl Actor {
    pub fn start(cgroup: &Path, netns: &str) -> Self {
        let itself = std::env::current_exe().expect("current executable");
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec nsenter --net=/run/netns/{netns} {} \
             --exact common::actor::obeys --nocapture",
            cgroup.display(),
            itself.display()
        );
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .env(ENVIRONMENT, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start actor");
        Self {
            commands: child.stdin.take().expect("piped"),
            answers: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    /// Sends a command and waits for its answer: `Err` holds the errno.
    fn ask(&mut self, command: &str) -> Result<String, i32> {
        writeln!(self.commands, "{command}").expect("actor is alive");
        let mut line = String::new();
        while self.answers.read_line(&mut line).expect("actor is alive") > 0 {
            if let Some(answer) = line.trim().strip_prefix(MARK) {
                return match answer.strip_prefix("error ") {
                    Some(errno) => Err(errno.parse().expect("errno")),
                    None => Ok(answer.to_owned()),
                };
            }
            line.clear();
        }
        panic!("the actor is gone");
    }

    /// Makes a socket of this address' family, the current one from now on; gives its cookie.
    pub fn socket(&mut self, family_of: &str) -> u64 {
        let cookie = self.ask(&format!("socket {family_of}")).expect("socket");
        cookie.parse().expect("cookie")
    }

    /// The same, of MPTCP.
    pub fn mptcp_socket(&mut self, family_of: &str) {
        self.ask(&format!("mptcp {family_of}")).expect("socket");
    }

    /// connect(AF_UNSPEC): the current socket is as good as new.
    pub fn take_back(&mut self) {
        self.ask("takeback").expect("connect(AF_UNSPEC)");
    }

    /// The current socket becomes the listener, on this address.
    pub fn listen_with_current(&mut self, on: &str) {
        self.ask(&format!("relisten {on}")).expect("listen");
    }

    /// Goes to another cgroup; its sockets stay.
    pub fn join(&mut self, cgroup: &Path) {
        let cgroup = cgroup.display();
        self.ask(&format!("join {cgroup}")).expect("move");
    }

    /// connect() with a new socket.
    pub fn connect(&mut self, to: &str) -> Result<(), i32> {
        self.socket(to);
        self.connect_socket(to)
    }

    /// connect() with the current socket.
    pub fn connect_socket(&mut self, to: &str) -> Result<(), i32> {
        self.ask(&format!("connect {to}")).map(drop)
    }

    /// Sets what notices a dead peer on the current socket: a user time-out of 3 s, and keepalive
    /// after 2 s, 4 times, every second.
    pub fn impatient(&mut self) {
        self.ask("impatient").expect("setsockopt");
    }

    pub fn bind(&mut self, to: &str) -> Result<(), i32> {
        self.socket(to);
        self.bind_socket(to)
    }

    /// bind() with the current socket.
    pub fn bind_socket(&mut self, to: &str) -> Result<(), i32> {
        self.ask(&format!("bind {to}")).map(drop)
    }

    /// bind() of an address that another socket may have too, before connect().
    pub fn bind_shared(&mut self, to: &str) -> Result<(), i32> {
        self.socket(to);
        self.ask(&format!("share-bind {to}")).map(drop)
    }

    /// connect() with the current socket, without waiting for its end.
    pub fn begin_connect(&mut self, to: &str) -> Result<(), i32> {
        self.ask(&format!("begin {to}")).map(drop)
    }

    /// A new listener, beside the current socket.
    pub fn listen(&mut self, on: &str) {
        self.ask(&format!("listen {on}")).expect("listen");
    }

    /// Accepts; the connection is the current socket from now on.
    pub fn accept(&mut self) -> Accepted {
        let answer = self.ask("accept").expect("accept");
        let (from, local) = answer.split_once(' ').expect("two addresses");
        Accepted {
            from: from.parse().expect("address"),
            local: local.parse().expect("address"),
        }
    }

    pub fn peer_name(&mut self) -> SocketAddr {
        self.ask("peername")
            .expect("getpeername")
            .parse()
            .expect("address")
    }

    /// getsockopt(SO_PEERNAME).
    pub fn peer_option(&mut self) -> SocketAddr {
        self.ask("peeroption")
            .expect("SO_PEERNAME")
            .parse()
            .expect("address")
    }

    pub fn local_name(&mut self) -> SocketAddr {
        self.ask("sockname")
            .expect("getsockname")
            .parse()
            .expect("address")
    }

    pub fn send(&mut self, text: &str) -> Result<(), i32> {
        self.ask(&format!("send {text}")).map(drop)
    }

    pub fn receive(&mut self) -> Result<String, i32> {
        self.ask("receive")
    }

    /// The current socket, in this process too (pidfd_getfd(2)).
    #[expect(unsafe_code, reason = "no library has pidfd_getfd")]
    pub fn share(&mut self) -> OwnedFd {
        let descriptor = self.ask("descriptor").expect("a socket");
        let descriptor: libc::c_int = descriptor.parse().expect("a number");
        // SAFETY: both calls take numbers only, and each gives a new descriptor or fails.
        unsafe {
            let own = |fd: libc::c_long| {
                let fd = i32::try_from(fd).expect("a descriptor");
                assert!(fd >= 0, "{}", io::Error::last_os_error());
                OwnedFd::from_raw_fd(fd)
            };
            let pidfd = own(libc::syscall(libc::SYS_pidfd_open, self.child.id(), 0));
            own(libc::syscall(
                libc::SYS_pidfd_getfd,
                pidfd.as_raw_fd(),
                descriptor,
                0,
            ))
        }
    }

    /// Resets the current socket's connection.
    pub fn abort(&mut self) {
        self.ask("abort").expect("abort");
    }

    /// Whether a FIN of its network namespace waits for its acknowledgement: a socket is in
    /// FIN_WAIT1, LAST_ACK or CLOSING (`include/net/tcp_states.h`).
    pub fn has_fin_under_way(&self) -> bool {
        let path = format!("/proc/{}/net/tcp", self.child.id());
        let sockets = std::fs::read_to_string(path).expect("the actor is alive");
        let state = |socket: &str| socket.split_whitespace().nth(3).map(str::to_owned);
        let mut states = sockets.lines().skip(1).filter_map(state);
        states.any(|state| ["04", "09", "0B"].contains(&state.as_str()))
    }

    /// Closes the current socket.
    pub fn close(&mut self) {
        self.ask("close").expect("close");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other side: not a test of its own, and nothing without the parent's environment.
#[test]
fn obeys() {
    if std::env::var_os(ENVIRONMENT).is_none() {
        return;
    }
    let mut state = State::default();
    for line in io::stdin().lines() {
        let line = line.expect("parent is alive");
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match state.obey(verb, argument) {
            Ok(answer) => println!("\n{MARK}{answer}"),
            Err(error) => println!("\n{MARK}error {}", error.raw_os_error().unwrap_or(-1)),
        }
    }
}

#[derive(Default)]
struct State {
    listener: Option<Socket>,
    current: Option<Socket>,
}

impl State {
    fn obey(&mut self, verb: &str, argument: &str) -> io::Result<String> {
        match verb {
            "socket" => self.make(argument, Protocol::TCP),
            "mptcp" => self.make(argument, Protocol::MPTCP),
            "takeback" => take_back(self.current()?).map(|()| String::new()),
            "relisten" => self.relisten(address(argument)),
            "join" => {
                // 0 stands for the writer (cgroups(7)).
                std::fs::write(Path::new(argument).join("cgroup.procs"), "0")?;
                Ok(String::new())
            }
            "connect" => connect(self.current()?, address(argument)).map(|()| String::new()),
            "share-bind" => {
                self.current()?.set_reuse_address(true)?;
                let to = address(argument).into();
                self.current()?.bind(&to).map(|()| String::new())
            }
            "begin" => begin(self.current()?, address(argument)).map(|()| String::new()),
            "bind" => self
                .current()?
                .bind(&address(argument).into())
                .map(|()| String::new()),
            "impatient" => impatient(self.current()?).map(|()| String::new()),
            "listen" => self.listen(address(argument)),
            "accept" => self.accept(),
            "peername" => Ok(text(self.current()?.peer_addr()?)),
            "peeroption" => peer_option(self.current()?).map(|a| a.to_string()),
            "sockname" => Ok(text(self.current()?.local_addr()?)),
            "send" => self
                .current()?
                .write_all(argument.as_bytes())
                .map(|()| String::new()),
            "receive" => self.receive(),
            "descriptor" => Ok(self.current()?.as_raw_fd().to_string()),
            "abort" => {
                let socket = self.current.take().expect("a socket");
                socket
                    .set_linger(Some(Duration::ZERO))
                    .map(|()| String::new())
            }
            "close" => {
                self.current = None;
                Ok(String::new())
            }
            other => panic!("no verb {other:?}"),
        }
    }

    fn current(&self) -> io::Result<&Socket> {
        self.current
            .as_ref()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTCONN))
    }

    fn make(&mut self, family_of: &str, protocol: Protocol) -> io::Result<String> {
        let domain = Domain::for_address(address(family_of));
        let socket = Socket::new(domain, Type::STREAM, Some(protocol))?;
        let cookie = socket.cookie()?;
        self.current = Some(socket);
        Ok(cookie.to_string())
    }

    fn listen(&mut self, on: SocketAddr) -> io::Result<String> {
        let listener = Socket::new(Domain::for_address(on), Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.bind(&on.into())?;
        listener.listen(16)?;
        listener.set_read_timeout(Some(CONNECT_TIMEOUT * 4))?;
        self.listener = Some(listener);
        Ok(String::new())
    }

    fn relisten(&mut self, on: SocketAddr) -> io::Result<String> {
        let socket = self.current.take();
        let socket = socket.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTCONN))?;
        socket.set_reuse_address(true)?;
        socket.bind(&on.into())?;
        socket.listen(16)?;
        socket.set_read_timeout(Some(CONNECT_TIMEOUT * 4))?;
        self.listener = Some(socket);
        Ok(String::new())
    }

    fn accept(&mut self) -> io::Result<String> {
        let listener = self.listener.as_ref().expect("listen first");
        let (socket, from) = listener.accept()?;
        let answer = format!("{} {}", text(from), text(socket.local_addr()?));
        self.current = Some(socket);
        Ok(answer)
    }

    fn receive(&mut self) -> io::Result<String> {
        let mut socket = self.current()?;
        socket.set_read_timeout(Some(CONNECT_TIMEOUT * 2))?;
        let mut buffer = [0; 1024];
        let length = socket.read(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

/// Tells a refusal by connect() itself (its errno) from a SYN that nobody answers (ETIMEDOUT).
fn connect(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match socket.connect_timeout(&to.into(), CONNECT_TIMEOUT) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
        }
        other => other,
    }
}

/// Leaves the handshake under way.
fn begin(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => other,
    }
}

#[expect(unsafe_code, reason = "socket2 makes no address of AF_UNSPEC")]
fn take_back(socket: &Socket) -> io::Result<()> {
    // SAFETY: all bytes zero are an address, whose family is AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere)).expect("16");
    // SAFETY: the pointer is to an address of this length.
    match unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn impatient(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(Duration::from_secs(3)))?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(2))
        .with_interval(Duration::from_secs(1))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn text(address: socket2::SockAddr) -> String {
    address.as_socket().expect("IP").to_string()
}

#[expect(unsafe_code, reason = "no library has SO_PEERNAME")]
fn peer_option(socket: &Socket) -> io::Result<SocketAddr> {
    const SO_PEERNAME: libc::c_int = 28;
    // The option refuses a buffer that is longer than the address.
    let exact = socket.local_addr()?.len();
    // SAFETY: the storage that socket2 gives is as long as it says, and the kernel writes an
    // address and its length into it.
    let (result, address) = unsafe {
        socket2::SockAddr::try_init(|storage, length| {
            let fd = socket.as_raw_fd();
            *length = exact;
            match libc::getsockopt(fd, libc::SOL_SOCKET, SO_PEERNAME, storage.cast(), length) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }?;
    let () = result;
    Ok(address.as_socket().expect("IP"))
}

impl Accepted {
    /// The port that the client chose.
    pub fn port(&self) -> u16 {
        self.from.port()
    }
}
