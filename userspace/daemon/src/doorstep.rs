//! Where connections wait that have not proven who they are. It has few places, and a flood from
//! one source costs that source its places, nobody else.

use crate::world::World;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// A bounded number of places, shared by everybody who takes connections of one kind.
#[derive(Clone)]
pub struct Doorstep(Arc<Mutex<Places>>);

struct Places {
    limit: usize,
    taken: usize,
    next: u64,
    /// Whoever waits, the longest first, by source.
    waiting: HashMap<Source, BTreeMap<u64, oneshot::Sender<()>>>,
}

/// Whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An address; of IPv6 its /64, in which anybody has as many addresses as they like.
    Elsewhere(IpAddr),
    /// An address that the directory gives to a node with kedge.
    Node(IpAddr),
}

impl Source {
    #[must_use]
    pub fn of(ip: IpAddr, world: &World) -> Self {
        let ip = ip.to_canonical();
        match world.directory.node_at(ip) {
            Some(node) if node.kedge => Self::Node(ip),
            _ => Self::Elsewhere(network_of(ip)),
        }
    }
}

fn network_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// A place on the doorstep, given back when dropped.
pub struct Place {
    doorstep: Doorstep,
    source: Source,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Doorstep {
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Places {
            limit,
            taken: 0,
            next: 0,
            waiting: HashMap::new(),
        })))
    }

    /// A place for one more. Where all are taken, the source that has most of them loses its
    /// oldest; nodes lose theirs only to other nodes. `None`: the newcomer is that source.
    #[must_use]
    pub fn admit(&self, source: Source) -> Option<Place> {
        let mut places = self.lock();
        if places.taken >= places.limit && !places.make_room_for(source) {
            return None;
        }
        let (loser, lost) = oneshot::channel();
        let number = places.next;
        places.next += 1;
        places.taken += 1;
        places
            .waiting
            .entry(source)
            .or_default()
            .insert(number, loser);
        Some(Place {
            doorstep: self.clone(),
            source,
            number,
            lost,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn make_room_for(&mut self, newcomer: Source) -> bool {
        let is_node = |source: &Source| matches!(source, Source::Node(_));
        let greatest = self
            .waiting
            .iter()
            .max_by_key(|(source, waiting)| (!is_node(source), waiting.len()));
        let Some((&source, _)) = greatest else {
            return false;
        };
        if is_node(&source) && !is_node(&newcomer) {
            return false;
        }
        let oldest = self.waiting.get(&source).and_then(|all| all.keys().next());
        let Some(&oldest) = oldest else {
            return false;
        };
        self.remove(source, oldest);
        true
    }

    /// Dropping its sender tells the place that it is lost.
    fn remove(&mut self, source: Source, number: u64) {
        let Some(waiting) = self.waiting.get_mut(&source) else {
            return;
        };
        if waiting.remove(&number).is_some() {
            self.taken -= 1;
        }
        if waiting.is_empty() {
            self.waiting.remove(&source);
        }
    }
}

impl Place {
    /// Until a newcomer has taken it.
    pub async fn lost(&mut self) {
        // Nothing is ever sent: the sender's end is the message.
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doorstep.lock().remove(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn node(last: u8) -> Source {
        Source::Node(Ipv4Addr::new(192, 0, 2, last).into())
    }

    fn elsewhere(last: u8) -> Source {
        Source::Elsewhere(Ipv4Addr::new(198, 51, 100, last).into())
    }

    fn is_lost(place: &mut Place) -> bool {
        place.lost.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn a_flood_takes_places_of_its_own_source_only() {
        let doorstep = Doorstep::new(8);
        let mut others = [elsewhere(1), elsewhere(2), node(3)]
            .map(|source| doorstep.admit(source).expect("there is room"));
        let mut flood: Vec<_> = (0..30_000)
            .map(|_| doorstep.admit(elsewhere(9)).expect("at its own cost"))
            .collect();
        assert!(!others.iter_mut().any(is_lost));
        let kept = flood
            .iter_mut()
            .filter_map(|place| (!is_lost(place)).then_some(()));
        assert_eq!(kept.count(), 5, "and no more than there are places");
        assert!(
            !is_lost(flood.last_mut().expect("many")),
            "the oldest went first"
        );
    }

    #[test]
    fn nodes_yield_to_nodes_only() {
        let doorstep = Doorstep::new(4);
        let mut flood: Vec<_> = (0..4)
            .map(|_| doorstep.admit(node(1)).expect("room"))
            .collect();
        assert!(doorstep.admit(elsewhere(1)).is_none());
        assert!(!flood.iter_mut().any(is_lost));
        let honest = doorstep.admit(node(2));
        assert!(honest.is_some() && is_lost(&mut flood[0]));
    }

    #[test]
    fn many_sources_elsewhere_take_nothing_from_a_node() {
        let doorstep = Doorstep::new(4);
        let mut honest: Vec<_> = (0..3)
            .map(|_| doorstep.admit(node(1)).expect("room"))
            .collect();
        let flood: Vec<_> = (0..=u8::MAX)
            .map(|last| doorstep.admit(elsewhere(last)))
            .collect();
        assert!(flood.iter().all(Option::is_some));
        assert!(!honest.iter_mut().any(is_lost));
    }

    #[test]
    fn a_place_given_back_is_free() {
        let doorstep = Doorstep::new(1);
        for _ in 0..3 {
            let mut place = doorstep.admit(elsewhere(1)).expect("free again");
            assert!(!is_lost(&mut place));
        }
        assert_eq!(doorstep.lock().taken, 0);
        assert!(doorstep.lock().waiting.is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let of = |text: &str| network_of(text.parse().expect("literal"));
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("198.51.100.1"), of("198.51.100.2"));
    }
}
