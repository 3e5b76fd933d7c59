//! Plaintext between two workloads of this node.

use super::{Broken, Over, Pending, Turn, poll_buffer, poll_read, shutdown};
use crate::dataplane::buffer::BUFFER_LEN;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;

/// From one local workload to another: no records.
#[derive(Default)]
pub struct Copy {
    pending: Option<Pending>,
}

impl Copy {
    pub fn holds_content(&self) -> bool {
        self.pending.is_some()
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
                ready!(pending.poll_write(cx, to)).map_err(Broken::Plain)?;
                self.pending = None;
            }
            let mut buffer = ready!(poll_buffer(cx, from, turn.pool)).map_err(Broken::Plain)?;
            let taken = ready!(poll_read(cx, from, BUFFER_LEN, || from.try_read(&mut buffer)))
                .map_err(Broken::Plain)?;
            if taken == 0 {
                shutdown(to).map_err(Broken::Plain)?;
                return Poll::Ready(Ok(Over::Ended));
            }
            self.pending = Some(Pending {
                buffer,
                range: 0..taken,
            });
            turn.meter.copied(taken, turn.now_s);
        }
        turn.rounds.give_way(cx)
    }
}
