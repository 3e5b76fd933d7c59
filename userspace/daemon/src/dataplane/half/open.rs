//! Records on a carrier into plaintext for a workload.

use super::{Broken, Ending, Over, Turn, poll_buffer, poll_io, poll_read, shutdown};
use crate::dataplane::buffer::{BUFFER_LEN, Buffer, SLOT};
use crate::fault;
use kedge_link::wire::Answer;
use kedge_record::{HEADER_LEN, OpenError, Opened, PeerMisbehaved, Unsealer, deframe, missing};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// From records to a workload.
pub struct Open {
    unsealer: Unsealer,
    answered: bool,
    held: Option<Held>,
    ending: Option<Ending>,
    /// Reads no byte beyond the record that it is in, so that somebody else can go on behind it.
    to_boundary: bool,
}

/// Received bytes: opened ones that wait to be written, then ones that are still sealed.
struct Held {
    buffer: Buffer,
    opened: [Range<usize>; Held::BATCH],
    opened_count: usize,
    sealed: Range<usize>,
}

impl Held {
    /// Records opened before they are written together.
    const BATCH: usize = 8;

    fn new(buffer: Buffer, sealed: Range<usize>) -> Self {
        Self {
            buffer,
            opened: std::array::from_fn(|_| 0..0),
            opened_count: 0,
            sealed,
        }
    }

    /// Moves the beginning of an incomplete record to the front, so that there is room for the
    /// rest of it.
    fn compact(&mut self) {
        if self.sealed.end + SLOT > BUFFER_LEN {
            self.buffer.copy_within(self.sealed.clone(), 0);
            self.sealed = 0..self.sealed.len();
        }
    }

    fn is_empty(&self) -> bool {
        self.opened_count == 0 && self.sealed.is_empty()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        while self.opened_count > 0 {
            let written = ready!(poll_io(
                cx,
                |cx| to.poll_write_ready(cx),
                || {
                    let slices = self.slices();
                    to.try_write_vectored(&slices[..self.opened_count])
                }
            ))?;
            self.consume(written);
            fault::point("bytes-delivered");
        }
        Poll::Ready(Ok(()))
    }

    fn slices(&self) -> [IoSlice<'_>; Self::BATCH] {
        std::array::from_fn(|i| IoSlice::new(&self.buffer[self.opened[i].clone()]))
    }

    fn consume(&mut self, mut written: usize) {
        let mut done = 0;
        for range in &mut self.opened[..self.opened_count] {
            let here = written.min(range.len());
            range.start += here;
            written -= here;
            if range.start < range.end {
                break;
            }
            done += 1;
        }
        self.opened[..self.opened_count].rotate_left(done);
        self.opened_count -= done;
    }
}

impl Open {
    /// The opener's side: the first record must be the answer.
    pub fn awaiting_answer(unsealer: Unsealer) -> Self {
        Self {
            unsealer,
            answered: false,
            held: None,
            ending: None,
            to_boundary: false,
        }
    }

    /// The acceptor's side, beginning with bytes that came behind record 0.
    pub fn with_received(unsealer: Unsealer, buffer: Buffer, sealed: Range<usize>) -> Self {
        let held = (!sealed.is_empty()).then(|| Held::new(buffer, sealed));
        Self {
            held,
            ..Self::continuing(unsealer)
        }
    }

    /// Either side, from the first record of a later carrier on.
    pub fn continuing(unsealer: Unsealer) -> Self {
        Self {
            answered: true,
            ..Self::awaiting_answer(unsealer)
        }
    }

    pub fn answered(&self) -> bool {
        self.answered
    }

    /// From now on reads to the end of the record that it is in, and waits there.
    pub fn stop_at_boundary(&mut self, stop: bool) {
        self.to_boundary = stop;
    }

    /// Whether everything that was read has been opened and written, and more is to come.
    pub fn is_at_boundary(&self) -> bool {
        self.answered && self.held.is_none() && self.ending.is_none()
    }

    pub fn holds_content(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.opened_count > 0)
    }

    pub fn into_unsealer(self) -> Unsealer {
        self.unsealer
    }

    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<Over, Broken>> {
        for _ in 0..turn.rounds.part() {
            if let Some(held) = &mut self.held {
                let written = held.poll_write(cx, to).map_err(Broken::Plain)?;
                // A reset waits for no reader.
                if written.is_pending() && self.ending != Some(Ending::Reset) {
                    return Poll::Pending;
                }
            }
            match self.ending {
                None => {}
                Some(Ending::Reset) => return Poll::Ready(Err(Broken::ResetByPeer)),
                Some(Ending::Clean) => {
                    self.held = None;
                    shutdown(to).map_err(Broken::Plain)?;
                    return Poll::Ready(Ok(Over::Ended));
                }
                Some(Ending::Continues) => {
                    return Poll::Ready(self.stop().map(|()| Over::Continues));
                }
            }
            if !self.open_batch(turn)? {
                if self.held.as_ref().is_some_and(Held::is_empty) {
                    self.held = None;
                }
                if self.to_boundary && self.is_at_boundary() {
                    break;
                }
                ready!(self.poll_receive(cx, from, turn))?;
            }
        }
        turn.rounds.give_way(cx)
    }

    /// Nothing may come behind a Continue.
    fn stop(&mut self) -> Result<(), Broken> {
        match self.held.take() {
            Some(held) if !held.sealed.is_empty() => {
                Err(OpenError::from(PeerMisbehaved::AfterClose).into())
            }
            _ => Ok(()),
        }
    }

    /// Opens the complete records that are there, up to a batch; false when there is none.
    fn open_batch(&mut self, turn: &Turn<'_>) -> Result<bool, Broken> {
        let Some(held) = &mut self.held else {
            return Ok(false);
        };
        let mut bytes = 0;
        let mut progress = false;
        while held.opened_count < Held::BATCH && self.ending.is_none() {
            let Some(len) = deframe(&held.buffer[held.sealed.clone()])? else {
                break;
            };
            let start = held.sealed.start;
            held.sealed.start += len;
            progress = true;
            match self.unsealer.open(&mut held.buffer[start..start + len])? {
                Opened::Data(content) if self.answered => {
                    if !content.is_empty() {
                        let start = start + HEADER_LEN;
                        held.opened[held.opened_count] = start..start + content.len();
                        held.opened_count += 1;
                        bytes += content.len();
                    }
                }
                Opened::Data(answer) => {
                    consume_answer(answer)?;
                    self.answered = true;
                    fault::point("answer-read");
                }
                Opened::CloseNotify => self.ending = Some(Ending::Clean),
                Opened::Reset => self.ending = Some(Ending::Reset),
                Opened::KeyUpdate => {}
                Opened::Continue => self.ending = Some(Ending::Continues),
            }
        }
        let (number, generation) = (
            self.unsealer.record_number(),
            self.unsealer.key_generation(),
        );
        turn.meter.opened(bytes, number, generation, turn.now_s);
        Ok(progress)
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<(), Broken>> {
        let held = match &mut self.held {
            Some(held) => held,
            none => {
                let buffer = ready!(poll_buffer(cx, from, turn.pool)).map_err(Broken::Carrier)?;
                none.insert(Held::new(buffer, 0..0))
            }
        };
        held.compact();
        let end = held.sealed.end;
        let room = match self.to_boundary {
            true => missing(&held.buffer[held.sealed.clone()])?,
            false => BUFFER_LEN - end,
        };
        let received = poll_read(cx, from, room, || {
            from.try_read(&mut held.buffer[end..end + room])
        });
        let received = match received {
            Poll::Ready(received) => received.map_err(Broken::Carrier)?,
            Poll::Pending => {
                if held.sealed.is_empty() {
                    self.held = None;
                }
                return Poll::Pending;
            }
        };
        if received == 0 {
            return Poll::Ready(Err(Broken::Truncated));
        }
        held.sealed.end += received;
        Poll::Ready(Ok(()))
    }
}

fn consume_answer(content: &[u8]) -> Result<(), Broken> {
    match Answer::parse(content).map_err(|_| Broken::BadAnswer)? {
        Answer::Accepted => Ok(()),
        Answer::Denied { refusal, text } => Err(Broken::Denied { refusal, text }),
    }
}
