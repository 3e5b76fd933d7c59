//! Readers that take their time. A TCP_USER_TIMEOUT ends a connection also when its other side has
//! acknowledged everything and has no room for more (net/ipv4/tcp_timer.c, tcp_probe_timer), as if
//! it were dead: an application that stops reading for half a minute would lose its connection. So
//! a leg that is held by its reader gets rid of our limit until the reader goes on. Of a limit that
//! the client has set itself it does not: direct TCP would keep to that too. And while bytes wait for
//! their reader nobody reads the carrier that they came by: if its node dies, it is noticed here.

use crate::dataplane::flow::Flow;
use crate::dataplane::half::Broken;
use crate::limits::READER_LOOK;
use kedge_sys::limits::USER_TIMEOUT;
use kedge_sys::tcp_info::TcpInfo;
use socket2::SockRef;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Looks at the legs of one flow once in a while, as long as bytes wait there to be taken.
#[derive(Default)]
pub struct Readers {
    next_look: Option<Pin<Box<Sleep>>>,
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
            let [_, carriers @ ..] = flow.legs();
            if let Some(error) = carriers.into_iter().find_map(death) {
                return Poll::Ready(Broken::Carrier(error));
            }
            let held = flow.legs().map(|leg| mind(leg).unwrap_or(false));
            if !held.contains(&true) && !flow.is_stalled() {
                self.next_look = None;
                return Poll::Pending;
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
    let is_reset = matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    (!is_reset).then_some(error)
}

/// Whether the leg is without our limit now.
///
/// # Errors
/// Of getsockopt() or setsockopt(): the connection is gone, and says so by itself.
fn mind(leg: &TcpStream) -> io::Result<bool> {
    let held = TcpInfo::of(leg)?.is_held_by_reader();
    let socket = SockRef::from(leg);
    match (held, socket.tcp_user_timeout()?) {
        (true, Some(USER_TIMEOUT)) => socket.set_tcp_user_timeout(None)?,
        (false, None) => socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?,
        _ => {}
    }
    Ok(held)
}
