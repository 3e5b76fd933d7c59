//! Nodes that have just left the directory. For a while kedged's own guard still lets packets to them
//! pass, so that their links and carriers are closed in order: a FIN that it dropped would be repeated
//! for minutes.

use crate::limits::FAREWELL;
use std::net::SocketAddr;
use std::time::Instant;

#[derive(Default)]
pub struct Farewells {
    present: Vec<SocketAddr>,
    leaving: Vec<(SocketAddr, Instant)>,
}

impl Farewells {
    /// Takes the directory's nodes as they are now; answers them with those that are leaving.
    pub fn take(&mut self, present: Vec<SocketAddr>, now: Instant) -> Vec<SocketAddr> {
        let gone = std::mem::replace(&mut self.present, present);
        let until = now + FAREWELL;
        self.leaving
            .extend(gone.into_iter().map(|node| (node, until)));
        let (present, leaving) = (&self.present, &mut self.leaving);
        // The guard knows one port an address.
        leaving.retain(|(node, until)| {
            *until > now && present.iter().all(|other| other.ip() != node.ip())
        });
        let leaving = leaving.iter().map(|(node, _)| *node);
        present.iter().copied().chain(leaving).collect()
    }

    /// Whether somebody's time is over.
    pub fn are_due(&self, now: Instant) -> bool {
        self.leaving.iter().any(|(_, until)| *until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn nodes(texts: &[&str]) -> Vec<SocketAddr> {
        let parse = |text: &&str| text.parse().expect("literal");
        texts.iter().map(parse).collect()
    }

    #[test]
    fn who_leaves_stays_for_a_while_and_then_not() {
        let (mut farewells, start) = (Farewells::default(), Instant::now());
        let (both, one) = (nodes(&["10.0.0.1:1", "10.0.0.2:1"]), nodes(&["10.0.0.1:1"]));
        assert_eq!(farewells.take(both.clone(), start), both);
        assert_eq!(farewells.take(one.clone(), start), both);
        let soon = start + FAREWELL - Duration::from_millis(1);
        assert!(!farewells.are_due(soon));
        assert_eq!(farewells.take(one.clone(), soon), both, "it leaves once");
        assert!(farewells.are_due(start + FAREWELL));
        assert_eq!(farewells.take(one.clone(), start + FAREWELL), one);
        assert!(!farewells.are_due(start + 2 * FAREWELL));
    }

    #[test]
    fn who_comes_back_or_changes_his_port_is_there_once() {
        let (mut farewells, start) = (Farewells::default(), Instant::now());
        farewells.take(nodes(&["10.0.0.1:1"]), start);
        farewells.take(Vec::new(), start);
        let back = nodes(&["10.0.0.1:2"]);
        assert_eq!(farewells.take(back.clone(), start), back);
        assert!(!farewells.are_due(start + FAREWELL));
    }
}
