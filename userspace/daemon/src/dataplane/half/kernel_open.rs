//! Records that the kernel opens into plaintext for a workload.

use super::{Broken, Ending, Over, Turn, poll_io, shutdown};
use crate::dataplane::half::content::Content;
use crate::dataplane::half::kernel::{cipher, install, update};
use crate::fault;
use crate::limits::PIPE_BYTES;
use kedge_record::{OpenError, OpenLedger, Opened, PLAINTEXT_MAX, Unsealer};
use kedge_sys::ktls::{self, Cipher, Direction};
use std::io;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// From the kernel's records to a workload.
pub struct KernelOpen {
    cipher: Cipher,
    ledger: OpenLedger,
    content: Content,
    /// What came instead of another record while the pipe still held some.
    early: Option<io::Result<usize>>,
    ending: Option<Ending>,
}

/// What the next record on the carrier was.
enum Next {
    /// Content of it is in the pipe.
    Data(usize),
    End,
    Control,
}

/// A record does not open (EBADMSG, errno(3)); so says the kernel from then on.
const FORGED: i32 = 74;
/// Longer than any control record that is allowed.
const CONTROL_MAX: usize = 64;

impl KernelOpen {
    /// Gives the kernel the key of `carrier`'s receiving direction. `unsealer` must stand at the
    /// boundary of a record, with nothing behind it read from the socket.
    ///
    /// # Errors
    /// When the kernel does not take it: the flow must end.
    pub fn take_over(carrier: &TcpStream, unsealer: Unsealer) -> Result<Self, Broken> {
        let (key, ledger) = unsealer.hand_over();
        let cipher = cipher(key.suite());
        install(carrier, Direction::Receive, &key)?;
        Ok(Self {
            cipher,
            ledger,
            content: Content::None,
            early: None,
            ending: None,
        })
    }

    pub fn holds_content(&self) -> bool {
        self.content.is_some()
    }

    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<Over, Broken>> {
        for _ in 0..turn.rounds.part() {
            let drained = self.poll_drain(cx, to, turn).map_err(Broken::Plain)?;
            // A reset waits for no reader.
            if drained.is_pending() && self.ending != Some(Ending::Reset) {
                return Poll::Pending;
            }
            match self.ending {
                None => {}
                Some(Ending::Reset) => return Poll::Ready(Err(Broken::ResetByPeer)),
                Some(Ending::Clean) => {
                    shutdown(to).map_err(Broken::Plain)?;
                    return Poll::Ready(Ok(Over::Ended));
                }
                Some(Ending::Continues) => return Poll::Ready(Ok(Over::Continues)),
            }
            match ready!(self.poll_next(cx, from, turn))? {
                Next::Data(bytes) => {
                    self.count(from, bytes, turn)?;
                    self.gather(from, bytes, turn)?;
                }
                Next::End => return Poll::Ready(Err(Broken::Truncated)),
                Next::Control => self.consume_control(from)?,
            }
        }
        turn.rounds.give_way(cx)
    }

    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<io::Result<()>> {
        while self.content.is_some() {
            ready!(self.content.poll_write(cx, to, turn, |written| written))?;
            fault::point("bytes-delivered");
        }
        Poll::Ready(Ok(()))
    }

    /// One record's content into an empty pipe.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<Next, Broken>> {
        let filled = match self.early.take() {
            Some(filled) => filled,
            None => {
                ready!(from.poll_read_ready(cx)).map_err(Broken::Carrier)?;
                let mut pipe = ready!(turn.pipes.poll_take(cx)).map_err(Broken::Kernel)?;
                let fill = || from.try_io(Interest::READABLE, || pipe.fill(from, PLAINTEXT_MAX));
                let filled = ready!(poll_io(cx, |cx| from.poll_read_ready(cx), fill));
                self.content = Content::of(pipe);
                filled
            }
        };
        Poll::Ready(match filled {
            Ok(0) => Ok(Next::End),
            Ok(bytes) => Ok(Next::Data(bytes)),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Next::Control),
            Err(error) => Err(self.broken(error)),
        })
    }

    /// More records behind a full one, so that fewer and longer segments go to the workload. "Would
    /// block" may be said of the pipe: it is no news of the carrier.
    fn gather(&mut self, from: &TcpStream, mut last: usize, turn: &Turn<'_>) -> Result<(), Broken> {
        let room = usize::try_from(PIPE_BYTES).expect("positive");
        while turn.pipes.hold_several() && last == PLAINTEXT_MAX {
            let Content::InPipe(pipe) = &mut self.content else {
                unreachable!("a record has come into it")
            };
            if pipe.held() + PLAINTEXT_MAX > room {
                break;
            }
            last = match pipe.fill(from, PLAINTEXT_MAX) {
                Ok(bytes) if bytes > 0 => bytes,
                Err(error) if is_later(&error) => break,
                ending => {
                    self.early = Some(ending);
                    break;
                }
            };
            self.count(from, last, turn)?;
        }
        Ok(())
    }

    /// The budget holds for the peer too. Parts of records make our own count too high.
    fn count(&mut self, from: &TcpStream, bytes: usize, turn: &Turn<'_>) -> Result<(), Broken> {
        self.ledger.opened_at_most(1);
        if self.ledger.check().is_err() {
            self.ledger.correct(self.number(from)?);
            self.ledger.check()?;
        }
        let (number, generation) = (self.ledger.record_number(), self.ledger.key_generation());
        turn.meter.opened(bytes, number, generation, turn.now_s);
        Ok(())
    }

    fn consume_control(&mut self, from: &TcpStream) -> Result<(), Broken> {
        let mut content = [0; CONTROL_MAX];
        let receive = || ktls::receive_record(from, &mut content);
        let (kind, length) = match from.try_io(Interest::READABLE, receive) {
            Ok(received) => received,
            // It was a record that does not begin like one (EINVAL), which is not readable either.
            Err(error) => return Err(self.broken(error)),
        };
        // Whether the kernel had counted it before, when it found out what it is, is its own business;
        // now it has, and it has opened nothing behind it.
        let number = self.number(from)?.saturating_sub(1);
        self.ledger.opened_at_most(1);
        match self.ledger.consume(kind, &content[..length], number)? {
            Opened::CloseNotify => self.ending = Some(Ending::Clean),
            Opened::Reset => self.ending = Some(Ending::Reset),
            Opened::KeyUpdate => {
                let key = self.ledger.update();
                update(from, Direction::Receive, &key)?;
            }
            Opened::Continue => {
                self.ledger.correct(number);
                self.ending = Some(Ending::Continues);
            }
            Opened::Data(_) => {}
        }
        Ok(())
    }

    /// After a Continue: what opens the next carrier's records, and the number of that record.
    pub fn into_next(self) -> (Unsealer, u64) {
        let last_record = self.ledger.record_number();
        (self.ledger.into_next(), last_record)
    }

    fn number(&self, from: &TcpStream) -> Result<u64, Broken> {
        ktls::record_number(from, Direction::Receive, self.cipher).map_err(Broken::Kernel)
    }

    fn broken(&self, error: io::Error) -> Broken {
        match error.raw_os_error() {
            Some(FORGED) => OpenError::Forged(self.ledger.record_number()).into(),
            _ => Broken::Carrier(error),
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
