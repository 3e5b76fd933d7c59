//! Which process has connected to a Unix socket, as the kernel vouches for it.
//!
//! A process number alone says nothing: its process may have ended, and another one have it. A
//! pidfd names the process that connected for ever (SO_PEERPIDFD, Linux 6.5), and as long as that
//! one lives its number is its own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The process that connected. Its socket may be somebody else's by now: what is said here is said
/// of whoever opened it.
#[derive(Debug)]
pub struct UnixPeer(OwnedFd);

/// Why nothing can be said of it.
#[derive(Debug, thiserror::Error)]
pub enum UnknownPeer {
    #[error("the kernel names no process for the connection (SO_PEERPIDFD, Linux 6.5 and later)")]
    NoPidfd(#[source] io::Error),
    #[error("its process has ended")]
    Ended,
    #[error("its process is in a PID namespace that cannot be seen from here")]
    OtherNamespace,
    #[error("read {path}")]
    Proc { path: String, source: io::Error },
}

impl UnixPeer {
    /// # Errors
    /// When the kernel does not say.
    pub fn of(socket: &impl AsFd) -> Result<Self, UnknownPeer> {
        let mut pidfd: libc::c_int = -1;
        let mut length = libc::socklen_t::try_from(size_of_val(&pidfd)).expect("four bytes");
        // SAFETY: the descriptor is borrowed and open; the kernel writes at most `length` bytes,
        // the size of `pidfd`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERPIDFD,
                (&raw mut pidfd).cast(),
                &raw mut length,
            )
        };
        if result != 0 {
            return Err(UnknownPeer::NoPidfd(io::Error::last_os_error()));
        }
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(pidfd) }))
    }

    /// Its cgroup (v2), as a path from the root of our cgroup namespace.
    ///
    /// # Errors
    /// When it has ended, or is not to be seen.
    pub fn cgroup(&self) -> Result<String, UnknownPeer> {
        let pid = self.pid()?;
        let text = read(format!("/proc/{pid}/cgroup"));
        // What was read was of our process only if that had the number until now.
        self.pid()?;
        let text = text?;
        let unified = text.lines().find_map(|line| line.strip_prefix("0::"));
        unified.map(str::to_owned).ok_or(UnknownPeer::Ended)
    }

    fn pid(&self) -> Result<u32, UnknownPeer> {
        let text = read(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"));
        match pid.and_then(|pid| pid.trim().parse::<i64>().ok()) {
            Some(0) => Err(UnknownPeer::OtherNamespace),
            Some(pid) => u32::try_from(pid).map_err(|_| UnknownPeer::Ended),
            None => Err(UnknownPeer::Ended),
        }
    }
}

fn read(path: String) -> Result<String, UnknownPeer> {
    fs::read_to_string(&path).map_err(|source| UnknownPeer::Proc { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_lives_has_the_cgroup_that_it_is_in() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let peer = match UnixPeer::of(&ours) {
            Err(UnknownPeer::NoPidfd(error)) => {
                // Before Linux 6.5 nobody is identified.
                assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT));
                return;
            }
            peer => peer.expect("a process"),
        };
        let own = fs::read_to_string("/proc/self/cgroup").expect("our own");
        let own = own.lines().find_map(|line| line.strip_prefix("0::"));
        assert_eq!(peer.cgroup().ok().as_deref(), own);
    }

    #[test]
    fn of_a_process_that_has_ended_nothing_is_said_though_its_socket_lives_on() {
        const CHILD: &str = "KEDGE_TEST_CONNECT_TO";
        if let Some(path) = std::env::var_os(CHILD) {
            let socket = UnixStream::connect(path).expect("connect");
            let mut heir = Command::new("sleep");
            heir.arg("30").stdin(OwnedFd::from(socket));
            heir.stdout(Stdio::null()).stderr(Stdio::null());
            println!("\nheir {}", heir.spawn().expect("sleep").id());
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("bind");
        let ended = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "--nocapture"])
            .arg("unix_peer::tests::of_a_process_that_has_ended_nothing_is_said_though_its_socket_lives_on")
            .env(CHILD, &path)
            .output()
            .expect("the child");
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        let (accepted, _) = listener.accept().expect("accept");
        let peer = UnixPeer::of(&accepted).and_then(|peer| peer.cgroup());
        let heir = said
            .lines()
            .find_map(|line| line.strip_prefix("heir ")?.parse().ok());
        let heir = nix::unistd::Pid::from_raw(heir.expect("the heir's number"));
        nix::sys::signal::kill(heir, nix::sys::signal::Signal::SIGKILL).expect("it lives");
        assert!(
            matches!(peer, Err(UnknownPeer::Ended | UnknownPeer::NoPidfd(_))),
            "{peer:?}"
        );
    }
}
