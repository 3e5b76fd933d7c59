//! Plaintext of a workload into records on a carrier.

use super::{Broken, Over, Pending, Turn, poll_buffer, poll_read, shutdown};
use crate::dataplane::buffer::{Buffer, FRONT, SLOT};
use crate::fault;
use crate::limits::RECORDS_PER_BUFFER;
use kedge_record::{ContentType, HEADER_LEN, OVERHEAD, PLAINTEXT_MAX, Rekey, Sealer};
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// Longest sealed KeyUpdate or alert.
const MESSAGE_MAX: usize = OVERHEAD + 8;

/// From a workload into records.
pub struct Seal {
    sealer: Sealer,
    pending: Option<Pending>,
    /// Whether the TCP connection is closed in this direction too after close_notify. Only the
    /// acceptor does that: the side that sends FIN first keeps TIME_WAIT, and that must not use
    /// up an opener's ports.
    fin: bool,
    /// The last record is sealed, and this is what it says.
    ending: Option<Over>,
    /// Reads nothing more once everything is written, so that somebody else can go on behind it.
    to_rest: bool,
}

impl Seal {
    pub fn new(sealer: Sealer, fin: bool) -> Self {
        Self {
            sealer,
            pending: None,
            fin,
            ending: None,
            to_rest: false,
        }
    }

    /// Begins with bytes that are sealed already: a first flight, or an answer.
    pub fn with_sealed(mut self, buffer: Buffer, range: Range<usize>) -> Self {
        self.pending = Some(Pending { buffer, range });
        self
    }

    pub fn is_written(&self) -> bool {
        self.pending.is_none()
    }

    /// From now on writes what is sealed and waits there: a workload that always has more would never
    /// let it come to rest.
    pub fn stop_at_rest(&mut self, stop: bool) {
        self.to_rest = stop;
    }

    /// Whether everything that was sealed has been written, and more is to come.
    pub fn is_at_rest(&self) -> bool {
        self.is_written() && self.ending.is_none()
    }

    /// The sealer, and whether FIN follows close_notify.
    pub fn into_sealer(self) -> (Sealer, bool) {
        (self.sealer, self.fin)
    }

    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        turn: &Turn<'_>,
    ) -> Poll<Result<Over, Broken>> {
        for _ in 0..turn.rounds.part() {
            if let Some(pending) = &mut self.pending {
                ready!(pending.poll_write(cx, to)).map_err(Broken::Carrier)?;
                self.pending = None;
                fault::point("records-written");
            }
            match self.ending {
                None => {}
                Some(Over::Continues) => return Poll::Ready(Ok(Over::Continues)),
                Some(Over::Ended) => {
                    fault::point("close-written");
                    if self.fin {
                        shutdown(to).map_err(Broken::Carrier)?;
                    }
                    return Poll::Ready(Ok(Over::Ended));
                }
            }
            if self.to_rest {
                break;
            }
            if self.sealer.wants_rekey() == Some(Rekey::Continue) {
                let buffer = ready!(turn.pool.poll_take(cx)).map_err(Broken::Carrier)?;
                self.seal_continue(buffer)?;
                continue;
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
            let (number, generation) = (self.sealer.record_number(), self.sealer.key_generation());
            turn.meter.sealed(taken, number, generation, turn.now_s);
        }
        turn.rounds.give_way(cx)
    }

    /// Seals what was read, or the end of it, in place.
    fn seal(&mut self, mut buffer: Buffer, taken: usize) -> Result<(), Broken> {
        let mut range = FRONT..FRONT;
        if self.sealer.wants_rekey() == Some(Rekey::InPlace) {
            range.start = self.seal_key_update(&mut buffer)?;
        }
        if taken == 0 {
            range.end += self.sealer.seal_close_notify(&mut buffer[FRONT..])?;
            self.ending = Some(Over::Ended);
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

    /// Seals the last record of this carrier.
    fn seal_continue(&mut self, mut buffer: Buffer) -> Result<(), Broken> {
        let len = self.sealer.seal_continue(&mut buffer)?;
        let range = 0..len;
        self.pending = Some(Pending { buffer, range });
        self.ending = Some(Over::Continues);
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
