//! What becomes of a new link to a node beside the one that is in use.

use crate::wire::InstanceId;
use kedge_model::SpiffeId;

/// What decides between two links; both ends know the same of each.
#[derive(Clone, Copy, Debug)]
pub struct Contender<'a> {
    /// The instance at the other end.
    pub peer: InstanceId,
    /// The SPIFFE ID of the node that was the TLS client of this link.
    pub tls_client: &'a SpiffeId,
    /// Greater for a link that was dialled, or taken, later. A TLS client dials one link to a node
    /// at a time, so this is the same order at both ends, whatever each has heard by then.
    pub begun: u64,
}

/// See [`settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// New flows use the new link; the one before is another instance's, and ends in its own time.
    Follows,
    /// New flows use the new link; the one before drains.
    Replaces,
    /// The new link drains.
    Yields,
}

/// Decides between the link that is in use, and not draining, and one that was just established.
/// Both ends keep the same one in whichever order they heard of them:
///
/// - Another instance of the node: the newer link counts.
/// - Different TLS clients (both nodes dialled at once): the smaller SPIFFE ID of a TLS client.
/// - The same TLS client: the one that was dialled later. It renews the other, or the client has
///   lost the other, which its server may not know yet.
#[must_use]
pub fn settle(in_use: &Contender<'_>, new: &Contender<'_>) -> Settled {
    if in_use.peer != new.peer {
        return Settled::Follows;
    }
    let new_wins = if in_use.tls_client == new.tls_client {
        in_use.begun < new.begun
    } else {
        new.tls_client < in_use.tls_client
    };
    if new_wins {
        Settled::Replaces
    } else {
        Settled::Yields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each link by the instance at its other end, its TLS client, and when it began.
    fn settled(in_use: (u8, &str, u64), new: (u8, &str, u64)) -> Settled {
        let id = |name| SpiffeId::parse(&format!("spiffe://td/kedge/node/{name}")).expect("id");
        let ids = [in_use.1, new.1].map(id);
        let contender = |(peer, _, begun), tls_client| Contender {
            peer: InstanceId([peer; 16]),
            tls_client,
            begun,
        };
        settle(&contender(in_use, &ids[0]), &contender(new, &ids[1]))
    }

    #[test]
    fn when_both_nodes_dial_the_smaller_client_wins_whoever_was_first() {
        for (first, second) in [(1, 2), (2, 1)] {
            let (a, b) = ((7, "a", first), (7, "b", second));
            assert_eq!(settled(a, b), Settled::Yields);
            assert_eq!(settled(b, a), Settled::Replaces);
        }
    }

    #[test]
    fn of_one_client_the_link_that_was_dialled_later_wins_whichever_was_heard_first() {
        assert_eq!(settled((7, "a", 1), (7, "a", 2)), Settled::Replaces);
        assert_eq!(settled((7, "a", 2), (7, "a", 1)), Settled::Yields);
    }

    #[test]
    fn another_instance_fights_no_duel() {
        assert_eq!(settled((1, "a", 1), (2, "a", 2)), Settled::Follows);
    }
}
