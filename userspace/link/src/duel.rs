//! Which of two live links between the same two instances stays.

use crate::wire::LinkId;
use kedge_model::SpiffeId;

/// What both ends know, authenticated, about one of the two links.
#[derive(Clone, Copy, Debug)]
pub struct Contender<'a> {
    pub link_id: LinkId,
    /// The SPIFFE ID of the node that was the TLS client of this link.
    pub tls_client: &'a SpiffeId,
    /// The link that this one replaces, as its TLS client's hello said.
    pub renews: Option<LinkId>,
}

/// The link that stays; the other one drains and is erased. Both ends come to the same result in
/// whichever order they saw the links, because only values of the links themselves count.
///
/// - Different TLS clients (both nodes dialled at once): the smaller SPIFFE ID of a TLS client.
/// - The same TLS client: the link that renews the other.
/// - Neither renews the other (the client lost track of the first): the larger link id.
#[must_use]
pub fn resolve_duel(one: &Contender<'_>, other: &Contender<'_>) -> LinkId {
    if one.tls_client != other.tls_client {
        return one.min_client(other).link_id;
    }
    match (
        one.renews == Some(other.link_id),
        other.renews == Some(one.link_id),
    ) {
        (true, false) => one.link_id,
        (false, true) => other.link_id,
        _ => one.link_id.max(other.link_id),
    }
}

impl<'a> Contender<'a> {
    fn min_client<'b>(&'b self, other: &'b Self) -> &'b Contender<'a> {
        if self.tls_client < other.tls_client {
            self
        } else {
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: LinkId = LinkId([1; 16]);
    const TWO: LinkId = LinkId([2; 16]);

    fn winner(one: (&str, Option<LinkId>), two: (&str, Option<LinkId>)) -> LinkId {
        let node = |name| SpiffeId::parse(&format!("spiffe://td/kedge/node/{name}")).expect("id");
        let (client_one, client_two) = (node(one.0), node(two.0));
        let one = Contender {
            link_id: ONE,
            tls_client: &client_one,
            renews: one.1,
        };
        let two = Contender {
            link_id: TWO,
            tls_client: &client_two,
            renews: two.1,
        };
        assert_eq!(
            resolve_duel(&one, &two),
            resolve_duel(&two, &one),
            "order must not matter"
        );
        resolve_duel(&one, &two)
    }

    #[test]
    fn when_both_nodes_dial_the_smaller_client_wins() {
        assert_eq!(winner(("a", None), ("b", None)), ONE);
        assert_eq!(winner(("b", None), ("a", None)), TWO);
        assert_eq!(winner(("a", None), ("b", Some(ONE))), ONE);
    }

    #[test]
    fn a_renewing_link_wins_over_the_renewed() {
        assert_eq!(winner(("a", Some(TWO)), ("a", None)), ONE);
        assert_eq!(winner(("a", None), ("a", Some(ONE))), TWO);
    }

    #[test]
    fn two_links_of_one_client_without_renewal_still_resolve() {
        assert_eq!(winner(("a", None), ("a", None)), TWO);
    }
}
