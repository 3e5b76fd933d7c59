//! Readers that take their time. A TCP_USER_TIMEOUT ends a connection also when its other side has
//! acknowledged everything and has no room for more (net/ipv4/tcp_timer.c, tcp_probe_timer), as if
//! it were dead: an application that stops reading for half a minute would lose its connection. So
//! a leg that is held by its reader gets rid of our limit until the reader goes on. Of a limit that
//! the client has set itself it does not: direct TCP would keep to that too.

use crate::dataplane::flow::Flow;
use crate::limits::READER_LOOK;
use kedge_sys::limits::USER_TIMEOUT;
use kedge_sys::tcp_info::TcpInfo;
use socket2::SockRef;
use std::io;
use std::pin::Pin;
use std::task::Context;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Looks at the legs of one flow once in a while, as long as bytes wait there to be taken.
#[derive(Default)]
pub struct Readers {
    next_look: Option<Pin<Box<Sleep>>>,
}

impl Readers {
    /// To be called whenever the flow has nothing to do but wait.
    pub fn poll(&mut self, cx: &mut Context<'_>, flow: &Flow) {
        if self.next_look.is_none() && !flow.is_stalled() {
            return;
        }
        let look = self
            .next_look
            .get_or_insert_with(|| Box::pin(sleep(READER_LOOK)));
        while look.as_mut().poll(cx).is_ready() {
            let held = flow.legs().map(|leg| mind(leg).unwrap_or(false));
            if !held.contains(&true) && !flow.is_stalled() {
                self.next_look = None;
                return;
            }
            look.as_mut().reset(Instant::now() + READER_LOOK);
        }
    }
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
