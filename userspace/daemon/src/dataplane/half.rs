//! One direction of a flow: bytes taken from one socket and put into another, sealed, opened or
//! copied on the way. A half is a value with explicit state; it holds a buffer only while bytes
//! are on their way.

use crate::dataplane::buffer::{BUFFER_LEN, Buffer, FRONT, Pool, SLOT};
use crate::dataplane::registry::Meter;
use crate::limits::{RECORDS_PER_BUFFER, TURNS_PER_POLL};
use kedge_link::wire::Answer;
use kedge_model::Refusal;
use kedge_record::{
    ContentType, HEADER_LEN, OVERHEAD, OpenError, Opened, PLAINTEXT_MAX, SealError, Sealer,
    Unsealer, deframe,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Longest sealed KeyUpdate or alert.
const MESSAGE_MAX: usize = OVERHEAD + 8;

/// Why a flow ended other than by a clean close of both directions.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the workload's connection ended: {0}")]
    Plain(#[source] io::Error),
    #[error("the carrier ended: {0}")]
    Carrier(#[source] io::Error),
    #[error("the carrier ended without close_notify")]
    Truncated,
    #[error("the peer's workload reset its connection")]
    ResetByPeer,
    #[error("the peer denied the flow: {refusal} ({text})")]
    Denied { refusal: Refusal, text: String },
    #[error("the peer did not answer the first flight in time")]
    NoAnswer,
    #[error("the peer's answer is malformed")]
    BadAnswer,
    #[error("open record: {0}")]
    Open(#[from] OpenError),
    #[error("seal record: {0}")]
    Seal(#[from] SealError),
}

impl From<kedge_record::FrameError> for Broken {
    fn from(error: kedge_record::FrameError) -> Self {
        Self::Open(error.into())
    }
}

/// What a half needs of its worker while it is polled.
pub struct Turn<'a> {
    pub pool: &'a Pool,
    pub meter: &'a Meter,
    /// Seconds since the worker's start, as of its last beat.
    pub now_s: u64,
}

/// Bytes of a buffer that wait to be written.
struct Pending {
    buffer: Buffer,
    range: Range<usize>,
}

impl Pending {
    fn poll_write(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        while !self.range.is_empty() {
            let written = ready!(poll_io(
                cx,
                |cx| to.poll_write_ready(cx),
                || { to.try_write(&self.buffer[self.range.clone()]) }
            ))?;
            self.range.start += written;
        }
        Poll::Ready(Ok(()))
    }
}

/// Repeats `attempt` until it gives something else than "would block", for which it waits.
fn poll_io<T>(
    cx: &mut Context<'_>,
    mut ready: impl FnMut(&mut Context<'_>) -> Poll<io::Result<()>>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Poll<io::Result<T>> {
    loop {
        ready!(ready(cx))?;
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Reads once into `room`. A read that did not fill its room has emptied the socket: saying so
/// now saves the system call that would find out (epoll(7), edge-triggered).
fn poll_read(
    cx: &mut Context<'_>,
    from: &TcpStream,
    room: usize,
    mut read: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    let taken = ready!(poll_io(cx, |cx| from.poll_read_ready(cx), &mut read))?;
    if taken != 0 && taken < room {
        let drained = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _ = from.try_io(Interest::READABLE, drained);
    }
    Poll::Ready(Ok(taken))
}

/// Reads the next bytes only once some are there, so that waiting costs no buffer.
fn poll_buffer(cx: &mut Context<'_>, from: &TcpStream, pool: &Pool) -> Poll<io::Result<Buffer>> {
    ready!(from.poll_read_ready(cx))?;
    pool.poll_take(cx).map(Ok)
}

/// From a workload into records.
pub struct Seal {
    sealer: Sealer,
    pending: Option<Pending>,
    /// Whether the TCP connection is closed in this direction too after close_notify. Only the
    /// acceptor does that: the side that sends FIN first keeps TIME_WAIT, and that must not use
    /// up an opener's ports.
    fin: bool,
    ending: bool,
}

impl Seal {
    pub fn new(sealer: Sealer, fin: bool) -> Self {
        Self {
            sealer,
            pending: None,
            fin,
            ending: false,
        }
    }

    /// Begins with bytes that are sealed already: a first flight, or an answer.
    pub fn with_sealed(mut self, buffer: Buffer, range: Range<usize>) -> Self {
        self.pending = Some(Pending { buffer, range });
        self
    }

    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..TURNS_PER_POLL {
            if let Some(pending) = &mut self.pending {
                ready!(pending.poll_write(cx, to)).map_err(Broken::Carrier)?;
                self.pending = None;
            }
            if self.ending {
                if self.fin {
                    shutdown(to).map_err(Broken::Carrier)?;
                }
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ready!(poll_buffer(cx, from, turn.pool)).map_err(Broken::Plain)?;
            let taken = ready!(poll_read(
                cx,
                from,
                RECORDS_PER_BUFFER * PLAINTEXT_MAX,
                || { read_into_slots(from, &mut buffer) }
            ))
            .map_err(Broken::Plain)?;
            self.seal(buffer, taken)?;
            turn.meter.sealed(taken, &self.sealer, turn.now_s);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Seals what was read, or the end of it, in place.
    fn seal(&mut self, mut buffer: Buffer, taken: usize) -> Result<(), Broken> {
        let mut range = FRONT..FRONT;
        if self.sealer.wants_key_update() {
            range.start = self.seal_key_update(&mut buffer)?;
        }
        if taken == 0 {
            range.end += self.sealer.seal_close_notify(&mut buffer[FRONT..])?;
            self.ending = true;
        }
        let mut left = taken;
        while left > 0 {
            let len = left.min(PLAINTEXT_MAX);
            let slot = &mut buffer[range.end..];
            range.end += self.sealer.seal(ContentType::ApplicationData, slot, len)?;
            left -= len;
        }
        self.pending = Some(Pending { buffer, range });
        Ok(())
    }

    /// Puts a KeyUpdate right in front of the records and returns where it begins.
    fn seal_key_update(&mut self, buffer: &mut Buffer) -> Result<usize, Broken> {
        let mut message = [0; MESSAGE_MAX];
        let len = self.sealer.seal_key_update(&mut message)?;
        buffer[FRONT - len..FRONT].copy_from_slice(&message[..len]);
        Ok(FRONT - len)
    }

    /// Tells the peer that the workload reset its connection, if that goes out at once: where it
    /// does not, the carrier's own end without close_notify means the same.
    pub fn reset(&mut self, to: &TcpStream) {
        if let Some(pending) = &mut self.pending {
            match to.try_write(&pending.buffer[pending.range.clone()]) {
                Ok(written) if written == pending.range.len() => self.pending = None,
                _ => return,
            }
        }
        let mut alert = [0; MESSAGE_MAX];
        if let Ok(len) = self.sealer.seal_reset(&mut alert) {
            let _ = to.try_write(&alert[..len]);
        }
    }
}

/// Reads up to one buffer, each record's content to its own slot.
fn read_into_slots(from: &TcpStream, buffer: &mut Buffer) -> io::Result<usize> {
    let mut slots = buffer[FRONT..].chunks_exact_mut(SLOT);
    let mut contents: [IoSliceMut<'_>; RECORDS_PER_BUFFER] = std::array::from_fn(|_| {
        let slot = slots
            .next()
            .expect("the buffer has RECORDS_PER_BUFFER slots");
        IoSliceMut::new(&mut slot[HEADER_LEN..][..PLAINTEXT_MAX])
    });
    from.try_read_vectored(&mut contents)
}

/// From records to a workload.
pub struct Open {
    unsealer: Unsealer,
    answered: bool,
    held: Option<Held>,
    ending: bool,
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
            ending: false,
        }
    }

    /// The acceptor's side, beginning with bytes that came behind record 0.
    pub fn with_received(unsealer: Unsealer, buffer: Buffer, sealed: Range<usize>) -> Self {
        let held = (!sealed.is_empty()).then(|| Held::new(buffer, sealed));
        Self {
            unsealer,
            answered: true,
            held,
            ending: false,
        }
    }

    pub fn answered(&self) -> bool {
        self.answered
    }

    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..TURNS_PER_POLL {
            if let Some(held) = &mut self.held {
                ready!(held.poll_write(cx, to)).map_err(Broken::Plain)?;
            }
            if self.ending {
                self.held = None;
                shutdown(to).map_err(Broken::Plain)?;
                return Poll::Ready(Ok(()));
            }
            if !self.open_batch(turn)? {
                ready!(self.poll_receive(cx, from, turn))?;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Opens the complete records that are there, up to a batch; false when there is none.
    fn open_batch(&mut self, turn: &Turn<'_>) -> Result<bool, Broken> {
        let Some(held) = &mut self.held else {
            return Ok(false);
        };
        let mut bytes = 0;
        let mut progress = false;
        while held.opened_count < Held::BATCH && !self.ending {
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
                }
                Opened::CloseNotify => self.ending = true,
                Opened::Reset => return Err(Broken::ResetByPeer),
                Opened::KeyUpdate => {}
            }
        }
        turn.meter.opened(bytes, &self.unsealer, turn.now_s);
        Ok(progress)
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<(), Broken>> {
        if self
            .held
            .as_ref()
            .is_some_and(|held| held.sealed.is_empty())
        {
            self.held = None;
        }
        let held = match &mut self.held {
            Some(held) => held,
            none => {
                let buffer = ready!(poll_buffer(cx, from, turn.pool)).map_err(Broken::Carrier)?;
                none.insert(Held::new(buffer, 0..0))
            }
        };
        held.compact();
        let end = held.sealed.end;
        let room = BUFFER_LEN - end;
        let received = poll_read(cx, from, room, || from.try_read(&mut held.buffer[end..]));
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

/// From one local workload to another: no records.
#[derive(Default)]
pub struct Copy {
    pending: Option<Pending>,
}

impl Copy {
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..TURNS_PER_POLL {
            if let Some(pending) = &mut self.pending {
                ready!(pending.poll_write(cx, to)).map_err(Broken::Plain)?;
                self.pending = None;
            }
            let mut buffer = ready!(poll_buffer(cx, from, turn.pool)).map_err(Broken::Plain)?;
            let taken = ready!(poll_read(cx, from, BUFFER_LEN, || from.try_read(&mut buffer)))
                .map_err(Broken::Plain)?;
            if taken == 0 {
                shutdown(to).map_err(Broken::Plain)?;
                return Poll::Ready(Ok(()));
            }
            self.pending = Some(Pending {
                buffer,
                range: 0..taken,
            });
            turn.meter.copied(taken, turn.now_s);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// FIN in one direction. A connection that is gone already has no direction left to end.
fn shutdown(stream: &TcpStream) -> io::Result<()> {
    match socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
        _ => Ok(()),
    }
}
