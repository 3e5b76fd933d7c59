//! The messages between two daemons, and the socket that keeps them apart.

use kedge_link::wire::Opening;
use kedge_sys::passing::{self, DESCRIPTORS_MAX};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Capture,
    Peer,
}

/// Listening sockets of a daemon, its own or another one's.
#[derive(Debug, Default)]
pub struct Handed(pub Vec<(Role, TcpListener)>);

/// A carrier of a peer, with the opening that was read from it.
#[derive(Debug)]
pub struct Passed {
    pub carrier: TcpStream,
    pub opening: [u8; Opening::LEN],
}

/// See the picture in [`crate::handover`].
#[derive(Debug)]
pub enum Message {
    Take,
    Listeners(Role, Vec<TcpListener>),
    All,
    StandBy,
    StandingBy,
    Serving,
    Carrier(Passed),
}

/// One end; any thread may send, one task receives.
pub struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        async_fd(socket).map(Self)
    }

    /// Never waits: a queue that is full is an error.
    pub fn send(&self, message: &Message) -> io::Result<()> {
        let (bytes, descriptors) = message.encode();
        passing::send(self.0.get_ref(), &bytes, &descriptors)
    }

    /// The sockets in as many messages as they need.
    pub fn send_listeners(&self, handed: Handed) -> io::Result<()> {
        let mut of_role = [(Role::Capture, Vec::new()), (Role::Peer, Vec::new())];
        for (role, listener) in handed.0 {
            of_role[usize::from(role == Role::Peer)].1.push(listener);
        }
        for (role, mut listeners) in of_role {
            while !listeners.is_empty() {
                let some = listeners.split_off(listeners.len().saturating_sub(DESCRIPTORS_MAX));
                self.send(&Message::Listeners(role, some))?;
            }
        }
        self.send(&Message::All)
    }

    /// `UnexpectedEof` when the other daemon has gone.
    pub async fn receive(&self) -> io::Result<Message> {
        // The longest is a carrier's.
        let mut buffer = [0; 1 + Opening::LEN];
        let (len, descriptors) = loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|socket| passing::receive(socket.get_ref(), &mut buffer)) {
                Ok(received) => break received?,
                Err(_would_block) => {}
            }
        };
        match len {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Message::decode(&buffer[..len], descriptors)
                .ok_or_else(|| io::ErrorKind::InvalidData.into()),
        }
    }
}

pub(super) fn async_fd(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "an owned descriptor stays open, which is all that is asked for"
    )]
    AsyncFd::new(socket)
}

impl Message {
    fn encode(&self) -> (Vec<u8>, Vec<BorrowedFd<'_>>) {
        match self {
            Self::Take => (vec![b'T'], Vec::new()),
            Self::Listeners(role, listeners) => {
                let kind = match role {
                    Role::Capture => b'C',
                    Role::Peer => b'P',
                };
                (vec![kind], listeners.iter().map(AsFd::as_fd).collect())
            }
            Self::All => (vec![b'A'], Vec::new()),
            Self::StandBy => (vec![b'B'], Vec::new()),
            Self::StandingBy => (vec![b'Y'], Vec::new()),
            Self::Serving => (vec![b'S'], Vec::new()),
            Self::Carrier(passed) => {
                let bytes = [&b"O"[..], &passed.opening].concat();
                (bytes, vec![passed.carrier.as_fd()])
            }
        }
    }

    fn decode(bytes: &[u8], mut descriptors: Vec<OwnedFd>) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let listeners = |role, descriptors: Vec<OwnedFd>| {
            let listeners = descriptors.into_iter().map(TcpListener::from);
            Self::Listeners(role, listeners.collect())
        };
        Some(match kind {
            b'T' => Self::Take,
            b'C' => listeners(Role::Capture, descriptors),
            b'P' => listeners(Role::Peer, descriptors),
            b'A' => Self::All,
            b'B' => Self::StandBy,
            b'Y' => Self::StandingBy,
            b'S' => Self::Serving,
            b'O' => Self::Carrier(Passed {
                opening: rest.try_into().ok()?,
                carrier: descriptors.pop()?.into(),
            }),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_what_is_decoded() {
        let said = [
            Message::Take,
            Message::All,
            Message::StandBy,
            Message::StandingBy,
            Message::Serving,
            Message::Listeners(Role::Peer, Vec::new()),
        ];
        for message in said {
            let (bytes, _) = message.encode();
            let heard = Message::decode(&bytes, Vec::new()).expect("known");
            assert_eq!(format!("{heard:?}"), format!("{message:?}"));
        }
        assert!(Message::decode(b"?", Vec::new()).is_none());
        assert!(Message::decode(b"O", Vec::new()).is_none(), "no carrier");
    }
}
