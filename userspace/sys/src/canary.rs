//! What this kernel really does with TLS, tried on loopback connections of our own. Versions say
//! little: distributions carry fixes back, and a kernel that accepts an option may still lose
//! bytes under it.

use crate::ktls::{
    ALERT, Cipher, Direction, HANDSHAKE, Key, attach, install, receive_record, record_number,
    send_record,
};
use crate::pipe::Pipe;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// One thing that kernel records need, or are better with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    pub name: &'static str,
    pub works: bool,
    /// What it is for; or what was seen instead, and what follows.
    pub reason: String,
}

struct Trial {
    name: &'static str,
    purpose: &'static str,
    /// What kedge does where it does not work.
    otherwise: &'static str,
    run: fn() -> Result<(), Failure>,
}

/// What a trial saw.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}: {1}")]
    Call(&'static str, #[source] io::Error),
    #[error("{0}")]
    Seen(&'static str),
}

const WITHOUT_KERNEL: &str = "records stay in userspace";
const OTHER_CIPHER: &str = "links with this cipher keep their records in userspace";

const TRIALS: [Trial; 7] = [
    Trial {
        name: "kTLS",
        purpose: "let the kernel seal and open records",
        otherwise: "records stay in userspace; `modprobe tls` if the kernel has it as a module",
        run: ulp,
    },
    Trial {
        name: "kTLS: AES-128-GCM",
        purpose: "take over at any record number",
        otherwise: OTHER_CIPHER,
        run: || cipher(Cipher::Aes128Gcm),
    },
    Trial {
        name: "kTLS: AES-256-GCM",
        purpose: "take over at any record number",
        otherwise: OTHER_CIPHER,
        run: || cipher(Cipher::Aes256Gcm),
    },
    Trial {
        name: "kTLS: ChaCha20-Poly1305",
        purpose: "take over at any record number",
        otherwise: OTHER_CIPHER,
        run: || cipher(Cipher::ChaCha20Poly1305),
    },
    Trial {
        name: "kTLS: control records",
        purpose: "tell close_notify and alerts from data",
        otherwise: WITHOUT_KERNEL,
        run: control_records,
    },
    Trial {
        name: "kTLS: splice into a short pipe",
        purpose: "let several records share a pipe on their way to a workload",
        otherwise: "each record goes through an empty pipe of 64 KiB",
        run: short_pipe,
    },
    Trial {
        name: "kTLS: key update",
        purpose: "update keys in place",
        otherwise: "a direction whose key ends goes on on another TCP connection to the peer",
        run: key_update,
    },
];

/// Tries everything, in some milliseconds, and leaves nothing behind.
#[must_use]
pub fn sing() -> Vec<Canary> {
    TRIALS.iter().map(Trial::outcome).collect()
}

impl Trial {
    fn outcome(&self) -> Canary {
        let failure = (self.run)().err();
        Canary {
            name: self.name,
            works: failure.is_none(),
            reason: match failure {
                None => self.purpose.to_owned(),
                Some(failure) => {
                    format!("needed to {}: {failure}; {}", self.purpose, self.otherwise)
                }
            },
        }
    }
}

/// For what is on its way over loopback: a bound, not a wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// A number that no connection begins with.
const FIRST_RECORD: u64 = 7;
/// Content of one full record.
const RECORD: usize = 16_384;
const PAGE: i32 = 4_096;

fn ulp() -> Result<(), Failure> {
    let (near, _far) = pair()?;
    attach(&near).map_err(|error| Failure::Call("attach TLS to a connection", error))
}

fn cipher(cipher: Cipher) -> Result<(), Failure> {
    let (mut near, mut far) = keyed(cipher)?;
    near.write_all(b"one").map_err(call("send"))?;
    near.write_all(b"two").map_err(call("send"))?;
    let mut content = [0; 6];
    far.read_exact(&mut content).map_err(call("receive"))?;
    expect(content == *b"onetwo", "other bytes came out than went in")?;
    for (socket, direction) in [(&near, Direction::Send), (&far, Direction::Receive)] {
        let number = record_number(socket, direction, cipher).map_err(call("read the number"))?;
        expect(number == FIRST_RECORD + 2, "the record number is not ours")?;
    }
    Ok(())
}

fn control_records() -> Result<(), Failure> {
    let (mut near, mut far) = keyed(Cipher::Aes128Gcm)?;
    near.write_all(b"data").map_err(call("send"))?;
    send_record(&near, ALERT, &[1, 0]).map_err(call("send an alert"))?;
    let mut content = [0; 16];
    let length = far.read(&mut content).map_err(call("receive"))?;
    expect(content[..length] == *b"data", "data and alert were mixed")?;
    expect(
        far.read(&mut content).is_err(),
        "read() took an alert for data",
    )?;
    let (content_type, length) =
        receive_record(&far, &mut content).map_err(call("receive an alert"))?;
    expect(
        (content_type, &content[..length]) == (ALERT, &[1, 0]),
        "the alert is not the one that was sent",
    )
}

/// Unfixed kernels take a record off the socket's queue when the pipe has room for a part of it.
fn short_pipe() -> Result<(), Failure> {
    let (near, far) = keyed(Cipher::Aes128Gcm)?;
    through_a_short_pipe(near, &far, Pipe::fill)
}

/// One record's bytes, by a splice into a pipe of one page.
fn through_a_short_pipe(
    mut near: TcpStream,
    far: &TcpStream,
    splice: impl Fn(&mut Pipe, &TcpStream, usize) -> io::Result<usize>,
) -> Result<(), Failure> {
    let sent: Vec<u8> = (0..=u8::MAX).cycle().take(RECORD).collect();
    near.write_all(&sent).map_err(call("send"))?;
    let mut pipe = Pipe::with_room(PAGE).map_err(call("make a pipe"))?;
    let (mut received, mut part) = (Vec::new(), [0; RECORD]);
    while received.len() < RECORD {
        wait(far)?;
        splice(&mut pipe, far, RECORD).map_err(call("splice"))?;
        let length = pipe.take(&mut part).map_err(call("read the pipe"))?;
        received.extend_from_slice(&part[..length]);
    }
    expect(received == sent, "other bytes came out than went in")
}

fn key_update() -> Result<(), Failure> {
    const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
    let cipher = Cipher::Aes128Gcm;
    let (mut near, mut far) = keyed(cipher)?;
    send_record(&near, HANDSHAKE, &KEY_UPDATE).map_err(call("send a KeyUpdate"))?;
    install(&near, Direction::Send, key(cipher, 0xee, 0))
        .map_err(call("update the sending key"))?;
    near.write_all(b"new").map_err(call("send"))?;
    let mut content = [0; 16];
    let (content_type, _) =
        receive_record(&far, &mut content).map_err(call("receive a KeyUpdate"))?;
    expect(content_type == HANDSHAKE, "the KeyUpdate came as data")?;
    install(&far, Direction::Receive, key(cipher, 0xee, 0))
        .map_err(call("update the receiving key"))?;
    far.read_exact(&mut content[..3]).map_err(call("receive"))?;
    expect(content[..3] == *b"new", "other bytes came out than went in")
}

/// Two ends of a connection, the first with a key to send, the second with the same to receive.
fn keyed(cipher: Cipher) -> Result<(TcpStream, TcpStream), Failure> {
    let (near, far) = pair()?;
    for (socket, direction) in [(&near, Direction::Send), (&far, Direction::Receive)] {
        attach(socket).map_err(call("attach TLS to a connection"))?;
        let key = key(cipher, 0x11, FIRST_RECORD);
        install(socket, direction, key).map_err(call("install a key"))?;
    }
    Ok((near, far))
}

/// A key for nobody's secrets.
fn key(cipher: Cipher, byte: u8, record_number: u64) -> Key {
    Key::new(
        cipher,
        &[byte; 32][..cipher.key_len()],
        &[byte; 12],
        record_number,
    )
}

fn pair() -> Result<(TcpStream, TcpStream), Failure> {
    let connect = || -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, from) = listener.accept()?;
        if from != near.local_addr()? {
            return Err(io::Error::other("somebody else connected"));
        }
        for socket in [&near, &far] {
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
        }
        Ok((near, far))
    };
    connect().map_err(call("connect over loopback"))
}

/// Until there is something to read; splice() itself would not wait.
fn wait(socket: &TcpStream) -> Result<(), Failure> {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).expect("some seconds");
    let ready = poll(&mut polled, patience).map_err(|error| Failure::Call("poll", error.into()))?;
    expect(ready == 1, "bytes were lost")
}

fn call(name: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::Call(name, error)
}

fn expect(holds: bool, otherwise: &'static str) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::Seen(otherwise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.12.43 and 6.18.15 do: the pipe gets what it has room for, and the rest of what
    /// was taken off the queue is gone.
    fn lose_the_rest(pipe: &mut Pipe, from: &TcpStream, most: usize) -> io::Result<usize> {
        let taken = pipe.fill(from, most)?;
        let mut rest = vec![0; most - taken];
        let _ = (&*from).read(&mut rest)?;
        Ok(taken)
    }

    #[test]
    fn a_splice_that_loses_what_a_pipe_has_no_room_for_is_found_out() {
        let (near, far) = pair().expect("loopback");
        through_a_short_pipe(near, &far, Pipe::fill)
            .expect("nothing is lost between plain sockets");
        let (near, far) = pair().expect("loopback");
        let failure = through_a_short_pipe(near, &far, lose_the_rest).expect_err("bytes are gone");
        assert!(
            matches!(failure, Failure::Seen("bytes were lost")),
            "{failure}"
        );
    }
}
