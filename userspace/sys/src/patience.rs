//! How long a leg of a flow waits for a side that says nothing.

use crate::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES, USER_TIMEOUT};
use socket2::{SockRef, Socket, TcpKeepalive};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// What the kernel asks of the other side of a connection on which nothing is under way
/// (SO_KEEPALIVE, tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub idle: Duration,
    pub interval: Duration,
    pub probes: u32,
}

impl Keepalive {
    /// From the last byte to the end of the connection.
    #[must_use]
    pub fn total(self) -> Duration {
        self.idle + self.interval * self.probes
    }
}

/// The limits of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// TCP_USER_TIMEOUT. Where it is set, keepalive gives up by it and not by its own count
    /// (net/ipv4/tcp_timer.c, tcp_keepalive_timer).
    pub user_timeout: Duration,
    pub keepalive: Keepalive,
}

impl Patience {
    /// That of every leg whose application wants nothing stricter.
    pub const OURS: Self = Self {
        user_timeout: USER_TIMEOUT,
        keepalive: Keepalive {
            idle: KEEPALIVE_IDLE,
            interval: KEEPALIVE_INTERVAL,
            probes: KEEPALIVE_PROBES,
        },
    };

    /// With what an application wants, where that is stricter. A stricter keepalive counts for
    /// bytes under way too: one limit ends both.
    #[must_use]
    pub fn or_stricter(self, user_timeout: Option<Duration>, keepalive: Option<Keepalive>) -> Self {
        let stricter = keepalive.filter(|theirs| theirs.total() < self.keepalive.total());
        let limits = [user_timeout, stricter.map(Keepalive::total)];
        let user_timeout = limits
            .into_iter()
            .flatten()
            .fold(self.user_timeout, Duration::min);
        Self {
            user_timeout,
            keepalive: stricter.unwrap_or(self.keepalive),
        }
    }

    /// Gives these limits to a socket that has ours, as all of [`crate::socket`] have.
    ///
    /// # Errors
    /// Of setsockopt().
    pub fn tighten(&self, socket: &impl AsFd) -> io::Result<()> {
        match *self == Self::OURS {
            true => Ok(()),
            false => self.set(&SockRef::from(socket)),
        }
    }

    pub(crate) fn set(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        let keepalive = TcpKeepalive::new()
            .with_time(self.keepalive.idle)
            .with_interval(self.keepalive.interval)
            .with_retries(self.keepalive.probes);
        socket.set_tcp_keepalive(&keepalive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keepalive(idle: u64, interval: u64, probes: u32) -> Keepalive {
        Keepalive {
            idle: Duration::from_secs(idle),
            interval: Duration::from_secs(interval),
            probes,
        }
    }

    #[test]
    fn the_stricter_of_two_limits_counts() {
        let three = Duration::from_secs(3);
        let hour = Duration::from_secs(3_600);
        let strict = Patience::OURS.or_stricter(Some(three), None);
        assert_eq!(
            (strict.user_timeout, strict.keepalive),
            (three, Patience::OURS.keepalive)
        );
        let lax = Patience::OURS.or_stricter(Some(hour), Some(keepalive(7_200, 75, 9)));
        assert_eq!(lax, Patience::OURS);
    }

    #[test]
    fn a_stricter_keepalive_brings_the_limit_by_which_it_gives_up() {
        let theirs = keepalive(2, 1, 3);
        let strict = Patience::OURS.or_stricter(None, Some(theirs));
        assert_eq!(strict.keepalive, theirs);
        assert_eq!(strict.user_timeout, Duration::from_secs(5));
        let both = Patience::OURS.or_stricter(Some(Duration::from_secs(4)), Some(theirs));
        assert_eq!(both.user_timeout, Duration::from_secs(4));
    }

    #[test]
    fn a_tightened_socket_has_the_stricter_limits() {
        let address = "127.0.0.1:0".parse().expect("literal");
        let listener = crate::socket::listen(address).expect("listen");
        let strict = Patience::OURS.or_stricter(Some(Duration::from_secs(3)), None);
        strict.tighten(&listener).expect("setsockopt");
        let set = SockRef::from(&listener).tcp_user_timeout();
        assert_eq!(set.expect("getsockopt"), Some(strict.user_timeout));
    }
}
