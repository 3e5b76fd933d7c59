//! Readers that take their time. TCP_USER_TIMEOUT ends a connection also when its other side has
//! acknowledged everything and has no room for more (net/ipv4/tcp_timer.c, tcp_probe_timer), as if
//! it were dead. It counts from the first question for room until there is room for the whole next
//! packet (tcp_ack_probe), so that it ends an application that pauses, and also one that reads on,
//! in small steps. So the legs of a flow that has once waited for room lose our limit for good, and
//! are looked at here. Of a limit that the client has set itself they keep it: direct TCP would
//! keep to that too. And while bytes wait for their reader nobody reads the carrier that they came
//! by: if its node dies, it is noticed here.

use crate::dataplane::flow::Flow;
use crate::dataplane::half::{Broken, is_reset};
use crate::limits::READER_LOOK;
use kedge_sys::limits::USER_TIMEOUT;
use kedge_sys::tcp_info::TcpInfo;
use socket2::SockRef;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Looks at the legs of one flow, from the first time on that bytes wait there to be taken.
#[derive(Default)]
pub struct Readers {
    next_look: Option<Pin<Box<Sleep>>>,
    owing: [Owing; 3],
}

impl Readers {
    /// To be called whenever the flow has nothing to do but wait. Ready if it waits in vain.
    pub fn poll(&mut self, cx: &mut Context<'_>, flow: &Flow) -> Poll<Broken> {
        if self.next_look.is_none() && !flow.is_stalled() {
            return Poll::Pending;
        }
        let look = self
            .next_look
            .get_or_insert_with(|| Box::pin(sleep(READER_LOOK)));
        while look.as_mut().poll(cx).is_ready() {
            let [near, carriers @ ..] = flow.legs();
            let [of_near, of_carriers @ ..] = &mut self.owing;
            if is_dead(near, of_near) {
                return Poll::Ready(Broken::Plain(io::ErrorKind::TimedOut.into()));
            }
            for (carrier, owing) in carriers.into_iter().zip(of_carriers) {
                if let Some(error) = death(carrier) {
                    return Poll::Ready(Broken::Carrier(error));
                }
                if is_dead(carrier, owing) {
                    return Poll::Ready(Broken::Carrier(io::ErrorKind::TimedOut.into()));
                }
            }
            look.as_mut().reset(Instant::now() + READER_LOOK);
        }
        Poll::Pending
    }
}

/// Why nothing will ever come from the other node. What a reset one has sent is still there to be
/// read: that flow ends with it.
fn death(carrier: &TcpStream) -> Option<io::Error> {
    let error = carrier.take_error().ok()??;
    (!is_reset(&error)).then_some(error)
}

/// Takes the limit, and the kernel's part. A leg that is gone says so by itself.
fn is_dead(leg: &TcpStream, owing: &mut Owing) -> bool {
    let socket = SockRef::from(leg);
    if let Ok(Some(USER_TIMEOUT)) = socket.tcp_user_timeout() {
        let _ = socket.set_tcp_user_timeout(None);
    }
    TcpInfo::of(leg).is_ok_and(|info| owing.is_for_too_long(&info, Instant::now()))
}

/// Since when a leg's other side has owed an acknowledgement, as far as anybody has looked.
#[derive(Default)]
struct Owing(Option<Instant>);

impl Owing {
    /// Whether it has owed one for as long as our limit is. Of the questions for room that it leaves
    /// without an answer one may be under way.
    fn is_for_too_long(&mut self, info: &TcpInfo, now: Instant) -> bool {
        if info.probes >= 2 {
            return info.last_ack >= USER_TIMEOUT;
        }
        let since = self.0.unwrap_or(now);
        let since = now
            .checked_sub(info.last_ack)
            .map_or(since, |acked| since.max(acked));
        self.0 = (info.unacked > 0).then_some(since);
        self.0.is_some_and(|since| now - since >= USER_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn info(unacked: u32, probes: u8, last_ack: Duration) -> TcpInfo {
        let mut info = TcpInfo::default();
        (info.unacked, info.probes, info.last_ack) = (unacked, probes, last_ack);
        info
    }

    /// At each of these looks, five seconds apart.
    fn looks<const N: usize>(infos: [TcpInfo; N]) -> [bool; N] {
        let (start, mut owing, mut looks) = (Instant::now() + s(100), Owing::default(), 0);
        infos.map(|info| {
            looks += 1;
            owing.is_for_too_long(&info, start + READER_LOOK * looks)
        })
    }

    #[test]
    fn who_acknowledges_nothing_for_the_limit_is_dead() {
        let silent = [1, 6, 11, 16, 21, 26].map(|age| info(3, 0, s(age)));
        assert_eq!(looks(silent), [false, false, false, false, true, true]);
    }

    #[test]
    fn who_acknowledges_now_and_then_lives() {
        let alive = [0, 4, 9, 14, 19, 1, 6, 11, 16].map(|age| info(1, 0, s(age)));
        assert_eq!(looks(alive), [false; 9]);
        let idle_before = [info(0, 0, s(70)), info(1, 0, s(75)), info(1, 0, s(2))];
        assert_eq!(looks(idle_before), [false; 3]);
    }

    #[test]
    fn who_answers_questions_for_room_lives_and_who_leaves_two_without_an_answer_does_not() {
        let reading = [0, 1, 0, 1, 0].map(|probes| info(0, probes, s(60)));
        assert_eq!(looks(reading), [false; 5]);
        let gone = [(1, 12), (2, 17), (2, 22)].map(|(probes, age)| info(0, probes, s(age)));
        assert_eq!(looks(gone), [false, false, true]);
    }
}
