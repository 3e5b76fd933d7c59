//! Goal: whoever dials when, whatever is lost and in whichever order anything arrives, two
//! instances end up with one link, the same at both, and no flow is lost to a duel.
//!
//! ```text
//!   a: dials, renews ──┐   each link: what each end has still to hear, in order   ┌── b: dials,
//!                      └── Established, Draining, or that it was cut ─────────────┘   renews
//! ```
//! Each end does what a daemon's table of links does; nothing else of it is here. A flow that is
//! on its way is younger than the 10 s for which a draining link still takes flows.

use kedge_link::{Contender, InstanceId, Settled, settle};
use kedge_model::SpiffeId;
use proptest::prelude::*;
use std::collections::VecDeque;

/// What one end of a link has still to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    Established,
    Draining,
    /// The connection was cut, or closed.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshaking,
    Open,
    Draining,
    Gone,
}

#[derive(Debug)]
struct Link {
    client: usize,
    state: [State; 2],
    to: [VecDeque<Message>; 2],
    cut: bool,
    /// Whether an end ever had it in use, or might have.
    stood: bool,
    /// Flows that are on their way to each end.
    flows: [u32; 2],
}

#[derive(Debug)]
struct Pair {
    nodes: [SpiffeId; 2],
    links: Vec<Link>,
    /// Of each end: the link for new flows, and the one that it dials.
    current: [Option<usize>; 2],
    dialling: [Option<usize>; 2],
    lost_to_a_duel: u32,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// A flow wants a link.
    Demand(usize),
    Renew(usize),
    /// One end of a link hears the next thing.
    Hear(usize, usize),
    Cut(usize),
    OpenFlow(usize),
    TakeFlow(usize, usize),
    /// A drained link is erased.
    Erase(usize),
}

impl Pair {
    fn new() -> Self {
        let node = |name| SpiffeId::parse(&format!("spiffe://td/kedge/node/{name}")).expect("id");
        Self {
            nodes: [node("a"), node("b")],
            links: Vec::new(),
            current: [None; 2],
            dialling: [None; 2],
            lost_to_a_duel: 0,
        }
    }

    fn act(&mut self, act: Act) {
        let at = |index: usize, links: &[Link]| (!links.is_empty()).then(|| index % links.len());
        match act {
            Act::Demand(end) if self.in_use(end).is_none() => self.dial(end),
            Act::Renew(end) => {
                let ours = self.in_use(end).filter(|at| self.links[*at].client == end);
                if ours.is_some() {
                    self.dial(end);
                }
            }
            Act::OpenFlow(end) => self.open_flow(end),
            Act::Demand(_) => {}
            Act::Hear(index, end) => at(index, &self.links)
                .into_iter()
                .for_each(|i| self.hear(i, end)),
            Act::Cut(index) => at(index, &self.links).into_iter().for_each(|i| self.cut(i)),
            Act::TakeFlow(index, end) => {
                at(index, &self.links)
                    .into_iter()
                    .for_each(|i| self.take_flow(i, end));
            }
            Act::Erase(index) => at(index, &self.links)
                .into_iter()
                .for_each(|i| self.erase(i)),
        }
    }

    /// The link on which this end would open a flow.
    fn in_use(&self, end: usize) -> Option<usize> {
        self.current[end].filter(|at| self.links[*at].state[end] == State::Open)
    }

    fn dial(&mut self, end: usize) {
        if self.dialling[end].is_some() {
            return;
        }
        self.dialling[end] = Some(self.links.len());
        self.links.push(Link {
            client: end,
            state: [State::Handshaking; 2],
            to: [
                VecDeque::from([Message::Established]),
                VecDeque::from([Message::Established]),
            ],
            cut: false,
            stood: false,
            flows: [0; 2],
        });
    }

    fn hear(&mut self, at: usize, end: usize) {
        match self.links[at].to[end].pop_front() {
            Some(Message::Established) => self.establish(at, end),
            Some(Message::Draining) => self.begin_drain(at, end),
            Some(Message::Gone) => {
                self.links[at].state[end] = State::Gone;
                self.dialled(at, end);
            }
            None => {}
        }
    }

    fn dialled(&mut self, at: usize, end: usize) {
        if self.dialling[end] == Some(at) {
            self.dialling[end] = None;
        }
    }

    fn establish(&mut self, at: usize, end: usize) {
        self.links[at].state[end] = State::Open;
        self.links[at].stood = true;
        self.dialled(at, end);
        let Some(rival) = self.in_use(end) else {
            self.current[end] = Some(at);
            return;
        };
        match settle(&self.contender(rival, end), &self.contender(at, end)) {
            Settled::Yields => self.drain(at, end),
            Settled::Replaces => {
                self.current[end] = Some(at);
                self.drain(rival, end);
            }
            Settled::Follows => panic!("there is one instance at each end"),
        }
    }

    fn contender(&self, at: usize, end: usize) -> Contender<'_> {
        let link = &self.links[at];
        Contender {
            peer: InstanceId([u8::from(end == 0); 16]),
            tls_client: &self.nodes[link.client],
            begun: at as u64,
        }
    }

    fn drain(&mut self, at: usize, end: usize) {
        self.begin_drain(at, end);
        self.say(at, 1 - end, Message::Draining);
    }

    fn begin_drain(&mut self, at: usize, end: usize) {
        if self.links[at].state[end] == State::Open {
            self.links[at].state[end] = State::Draining;
        }
    }

    fn say(&mut self, at: usize, end: usize, message: Message) {
        let link = &mut self.links[at];
        if !link.cut {
            link.to[end].push_back(message);
        }
    }

    /// What neither end has heard yet is lost; both notice, each in its own time.
    fn cut(&mut self, at: usize) {
        let link = &mut self.links[at];
        if !std::mem::replace(&mut link.cut, true) {
            link.to = [
                VecDeque::from([Message::Gone]),
                VecDeque::from([Message::Gone]),
            ];
            link.flows = [0; 2];
        }
    }

    /// Both identities are proven on a link before it carries a flow: both ends have it then.
    fn open_flow(&mut self, end: usize) {
        let Some(at) = self.in_use(end) else { return };
        let link = &mut self.links[at];
        if link.state[1 - end] != State::Handshaking && !link.cut {
            link.flows[1 - end] += 1;
        }
    }

    fn take_flow(&mut self, at: usize, end: usize) {
        let link = &mut self.links[at];
        if link.flows[end] > 0 {
            link.flows[end] -= 1;
            let takes = matches!(link.state[end], State::Open | State::Draining);
            self.lost_to_a_duel += u32::from(!takes);
        }
    }

    fn erase(&mut self, at: usize) {
        let link = &self.links[at];
        let heard = link.to.iter().all(VecDeque::is_empty);
        if heard && link.flows == [0; 2] && link.state.contains(&State::Draining) {
            self.links[at].state = [State::Gone; 2];
        }
    }

    /// Everything that was said is heard, and every flow arrives.
    fn settle_down(&mut self) {
        while self
            .links
            .iter()
            .any(|link| link.to.iter().any(|to| !to.is_empty()))
        {
            for at in 0..self.links.len() {
                (0..2).for_each(|end| self.hear(at, end));
            }
        }
        for at in 0..self.links.len() {
            (0..2).for_each(|end| {
                while self.links[at].flows[end] > 0 {
                    self.take_flow(at, end);
                }
            });
        }
    }

    /// Whether there may be no link: none was made, or what a duel left was cut.
    fn none_is_due(&self) -> bool {
        let mut stood = self.links.iter().filter(|link| link.stood).peekable();
        stood.peek().is_none() || stood.any(|link| link.cut)
    }

    fn open_at(&self, end: usize) -> Vec<usize> {
        let open = |at: &usize| self.links[*at].state[end] == State::Open;
        (0..self.links.len()).filter(open).collect()
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let end = || 0..2usize;
    let link = || 0..24usize;
    let act = prop_oneof![
        3 => end().prop_map(Act::Demand),
        2 => end().prop_map(Act::Renew),
        8 => (link(), end()).prop_map(|(at, end)| Act::Hear(at, end)),
        1 => link().prop_map(Act::Cut),
        3 => end().prop_map(Act::OpenFlow),
        3 => (link(), end()).prop_map(|(at, end)| Act::TakeFlow(at, end)),
        1 => link().prop_map(Act::Erase),
    ];
    prop::collection::vec(act, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn exactly_one_link_is_left_the_same_at_both_ends_and_no_flow_is_lost(
        acts in acts(),
        cuts in any::<bool>(),
    ) {
        let mut pair = Pair::new();
        let acts = acts.into_iter().filter(|act| cuts || !matches!(act, Act::Cut(_)));
        acts.for_each(|act| pair.act(act));
        pair.settle_down();
        let open = [pair.open_at(0), pair.open_at(1)];
        let count = open[0].len();
        prop_assert!(count == 1 || count == 0 && pair.none_is_due(), "{:?}", pair);
        prop_assert_eq!(&open[0], &open[1], "{:?}", pair);
        // Where the last one was lost, both ends want one, at once.
        (0..2).for_each(|end| pair.act(Act::Demand(end)));
        pair.settle_down();
        let open = [pair.open_at(0), pair.open_at(1)];
        prop_assert!(open[0].len() == 1 && open[0] == open[1], "{:?}", pair);
        let in_use = [pair.in_use(0), pair.in_use(1)];
        prop_assert_eq!(in_use, [open[0].first().copied(); 2], "{:?}", pair);
        prop_assert_eq!(pair.lost_to_a_duel, 0, "{:?}", pair);
    }
}
