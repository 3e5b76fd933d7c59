//! Plaintext of a workload into records that the kernel seals.

use super::{Broken, Over, Turn, poll_io, shutdown};
use crate::dataplane::half::content::Content;
use crate::dataplane::half::kernel::{cipher, install, update};
use crate::fault;
use crate::limits::{PIPE_BYTES, SEND_SETTLE};
use kedge_record::{OVERHEAD, Rekey, SealLedger, Sealer};
use kedge_sys::ktls::{self, Cipher, Direction};
use kedge_sys::socket::push;
use kedge_sys::tcp_info::TcpInfo;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// From a workload into the kernel's records.
pub struct KernelSeal {
    cipher: Cipher,
    ledger: SealLedger,
    content: Content,
    fin: bool,
    end: End,
    sent: Sent,
}

/// How far this direction has come to its end.
enum End {
    NotYet,
    /// The workload has sent its last byte.
    Due,
    /// close_notify is sealed. Until all of it has been written, a FIN would cut it off.
    Settling(Option<Pin<Box<Sleep>>>),
}

/// What the connection must have been written when nothing is held back in the kernel's TLS.
struct Sent {
    /// What had been written before the kernel sealed anything.
    before: u64,
    content: u64,
    /// Records under earlier keys, less those that we had sealed under the first one.
    records: u64,
    first: u64,
}

/// Most records that one splice() of a pipe makes: one for each of its buffers, and one that was
/// begun before.
const RECORDS_PER_DRAIN: u64 = PIPE_BYTES as u64 / 4_096 + 1;

impl KernelSeal {
    /// Gives the kernel the key of `carrier`'s sending direction. Everything that `sealer` has
    /// sealed must have been written.
    ///
    /// # Errors
    /// When the kernel does not take it: the flow must end, since what is written now would be
    /// plaintext.
    pub fn take_over(carrier: &TcpStream, sealer: Sealer, fin: bool) -> Result<Self, Broken> {
        let before = TcpInfo::of(carrier)
            .map_err(Broken::Kernel)?
            .bytes_written();
        let (key, ledger) = sealer.hand_over();
        let cipher = cipher(key.suite());
        let first = key.record_number();
        install(carrier, Direction::Send, &key)?;
        let sent = Sent {
            before,
            content: 0,
            records: 0,
            first,
        };
        Ok(Self {
            cipher,
            ledger,
            content: Content::None,
            fin,
            end: End::NotYet,
            sent,
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
            ready!(self.poll_drain(cx, to, turn))?;
            match &mut self.end {
                End::NotYet => {}
                End::Due => {
                    let (kind, content) = SealLedger::CLOSE_NOTIFY;
                    ready!(self.poll_control(cx, to, kind as u8, content))?;
                    self.end = End::Settling(None);
                    fault::point("close-written");
                    continue;
                }
                End::Settling(_) => return self.poll_settle(cx, to).map_ok(|()| Over::Ended),
            }
            if ready!(self.poll_rekey(cx, to))? == Some(Rekey::Continue) {
                return Poll::Ready(Ok(Over::Continues));
            }
            let taken = ready!(self.poll_fill(cx, from, turn))?;
            if taken == 0 {
                self.end = End::Due;
            }
            let (number, generation) = (self.ledger.record_number(), self.ledger.key_generation());
            turn.meter.sealed(taken, number, generation, turn.now_s);
        }
        turn.rounds.give_way(cx)
    }

    /// Tells the peer that the workload reset its connection, if that goes out at once.
    pub fn reset(&mut self, to: &TcpStream) {
        if !self.holds_content() && matches!(self.end, End::NotYet) {
            let (kind, content) = SealLedger::RESET;
            let _ = ktls::send_record(to, kind as u8, content);
        }
    }

    /// Gives all that the workload has sent to the kernel.
    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<(), Broken>> {
        while self.holds_content() {
            // Writing to a dead connection with TLS succeeds: only this tells.
            if let Some(error) = to.take_error().map_err(Broken::Carrier)? {
                return Poll::Ready(Err(Broken::Carrier(error)));
            }
            self.check_budget(to)?;
            let tried = |written| push_if_full(to, written);
            let written = ready!(self.content.poll_write(cx, to, turn, tried));
            self.sent.content += written.map_err(Broken::Carrier)? as u64;
            self.ledger.sealed_at_most(RECORDS_PER_DRAIN);
            fault::point("records-written");
        }
        Poll::Ready(Ok(()))
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<usize, Broken>> {
        ready!(from.poll_read_ready(cx)).map_err(Broken::Plain)?;
        let mut pipe = ready!(turn.pipes.poll_take(cx)).map_err(Broken::Kernel)?;
        let room = usize::try_from(PIPE_BYTES).expect("positive");
        // A pipe may be full long before its bytes are (each small packet takes a page): less than
        // its room does not mean that the socket is empty.
        let fill = || from.try_io(Interest::READABLE, || pipe.fill(from, room));
        let taken = ready!(poll_io(cx, |cx| from.poll_read_ready(cx), fill));
        self.content = Content::of(pipe);
        Poll::Ready(taken.map_err(Broken::Plain))
    }

    /// Before the budget ends, as the kernel itself counts; says what has been done.
    fn poll_rekey(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
    ) -> Poll<Result<Option<Rekey>, Broken>> {
        if self.ledger.wants_rekey().is_none() {
            return Poll::Ready(Ok(None));
        }
        self.ledger.correct(self.number(to)?);
        let rekey = self.ledger.wants_rekey();
        match rekey {
            None => {}
            Some(Rekey::InPlace) => {
                let (kind, content) = SealLedger::KEY_UPDATE;
                ready!(self.poll_control(cx, to, kind as u8, content))?;
                self.sent.records += self.number(to)? - self.sent.first;
                self.sent.first = 0;
                let key = self.ledger.update();
                update(to, Direction::Send, &key)?;
            }
            Some(Rekey::Continue) => {
                let (kind, content) = SealLedger::CONTINUE;
                ready!(self.poll_control(cx, to, kind as u8, content))?;
                self.ledger.correct(self.number(to)?);
            }
        }
        Poll::Ready(Ok(rekey))
    }

    /// After a Continue: what is left of this half, and the number of that record.
    pub fn into_next(self) -> (Sealer, bool, u64) {
        let last_record = self.ledger.record_number() - 1;
        (self.ledger.into_next(), self.fin, last_record)
    }

    /// Whether the budget allows the records of one drain. Our own count is too high as a rule.
    fn check_budget(&mut self, to: &TcpStream) -> Result<(), Broken> {
        if self.ledger.check(RECORDS_PER_DRAIN).is_err() {
            self.ledger.correct(self.number(to)?);
            self.ledger.check(RECORDS_PER_DRAIN)?;
        }
        Ok(())
    }

    fn poll_control(
        &mut self,
        cx: &mut Context<'_>,
        to: &TcpStream,
        kind: u8,
        content: &[u8],
    ) -> Poll<Result<(), Broken>> {
        let send = || to.try_io(Interest::WRITABLE, || ktls::send_record(to, kind, content));
        ready!(poll_io(cx, |cx| to.poll_write_ready(cx), send)).map_err(Broken::Carrier)?;
        self.sent.content += content.len() as u64;
        self.ledger.sealed_at_most(1);
        Poll::Ready(Ok(()))
    }

    /// FIN, where we send it, once the kernel's TLS has nothing left that it would cut off.
    fn poll_settle(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<Result<(), Broken>> {
        while self.fin {
            if self.is_written(to).map_err(Broken::Carrier)? {
                shutdown(to).map_err(Broken::Carrier)?;
                break;
            }
            if let Some(error) = to.take_error().map_err(Broken::Carrier)? {
                return Poll::Ready(Err(Broken::Carrier(error)));
            }
            let End::Settling(pause) = &mut self.end else {
                unreachable!("only called while settling")
            };
            let pause = pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(SEND_SETTLE)));
            ready!(pause.as_mut().poll(cx));
            self.end = End::Settling(None);
        }
        Poll::Ready(Ok(()))
    }

    fn is_written(&self, to: &TcpStream) -> io::Result<bool> {
        let number = ktls::record_number(to, Direction::Send, self.cipher)?;
        let records = self.sent.records + number - self.sent.first;
        let sealed = self.sent.content + records * OVERHEAD as u64;
        Ok(TcpInfo::of(to)?.bytes_written() == self.sent.before + sealed)
    }

    fn number(&self, to: &TcpStream) -> Result<u64, Broken> {
        ktls::record_number(to, Direction::Send, self.cipher).map_err(Broken::Kernel)
    }
}

/// Before Linux 6.5 the kernel's TLS gives its records to TCP as if more were to come at once, also
/// when the socket is full then: TCP would wait for more, and the socket for room, for ever.
fn push_if_full(to: &TcpStream, written: io::Result<usize>) -> io::Result<usize> {
    if matches!(&written, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
        push(to)?;
    }
    written
}
