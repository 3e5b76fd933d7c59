//! The broker's state: challenges that wait, and the one quote that answers them all.
//!
//! ```text
//!   submit ─► waiting ─ begin ─► Batch ─ TPM ─► complete ─► an answer each
//!                (no timer: whoever waits when the TPM is free is in the next quote)
//! ```
//!
//! One quote is in flight at most, and it takes along everybody who waits; so a caller waits for the
//! quote that is under way when it comes and for its own, and for no third.

use crate::claims::{Challenge, Claims, NodeKey, Purpose, qualifying_data};
use crate::digest::Sha256;
use crate::error::{BatchError, TpmError};
use crate::evidence::{Evidence, Quoted};
use crate::limits::{LOCAL_WAITING_MAX, OWN_WAITING_MAX};
use crate::share::{Places, Rates};
use crate::tree::Tree;
use std::sync::Arc;
use std::time::Duration;

/// What happened so far, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounters {
    /// Quotes that the TPM gave.
    pub quotes: u64,
    /// Challenges that a quote answered.
    pub challenges: u64,
    /// Challenges that were refused before they waited.
    pub refused: u64,
    /// Quotes that the TPM did not give.
    pub errors: u64,
    /// Challenges that wait now, beside those of the quote in flight.
    pub waiting: usize,
    /// The largest number of challenges that one quote has answered.
    pub largest: usize,
}

/// Challenges, and with each what its answer goes to: `T` is the caller's own.
pub struct Batcher<T> {
    node_key: NodeKey,
    waiting: Vec<(Challenge, T)>,
    local: Places,
    own: usize,
    rates: Rates,
    in_flight: bool,
    counters: BatchCounters,
}

/// Challenges that one quote is to answer. Whoever holds it owes [`Batcher::complete`] a result.
#[must_use = "everybody in it waits until it is completed"]
pub struct Batch<T> {
    entries: Vec<(Claims, T)>,
    tree: Option<Tree>,
}

/// What each caller of a batch gets, made one by one.
pub struct Answers<T> {
    entries: std::iter::Enumerate<std::vec::IntoIter<(Claims, T)>>,
    tree: Tree,
    quoted: Result<Arc<Quoted>, TpmError>,
}

impl<T> Batcher<T> {
    /// For the node whose SVID has this key.
    #[must_use]
    pub fn new(node_key: NodeKey) -> Self {
        Self {
            node_key,
            waiting: Vec::new(),
            local: Places::new(LOCAL_WAITING_MAX),
            own: 0,
            rates: Rates::default(),
            in_flight: false,
            counters: BatchCounters::default(),
        }
    }

    /// The node's SVID has another key from now on. Who waits gets Evidence about the new one.
    pub fn use_node_key(&mut self, node_key: NodeKey) {
        self.node_key = node_key;
    }

    /// Lets a challenge wait for the next quote. `now` is any clock that does not go back.
    ///
    /// # Errors
    /// When its caller asks too fast or holds its share, or there is no room; with `reply` back.
    pub fn submit(
        &mut self,
        challenge: Challenge,
        reply: T,
        now: Duration,
    ) -> Result<(), (BatchError, T)> {
        match self.admit(&challenge, now) {
            Ok(()) => {
                self.waiting.push((challenge, reply));
                Ok(())
            }
            Err(error) => {
                self.counters.refused += 1;
                Err((error, reply))
            }
        }
    }

    /// What the daemon itself asks, for its links and Results, is limited where it is asked and has
    /// room of its own: callers on the node cannot keep it from the TPM.
    fn admit(&mut self, challenge: &Challenge, now: Duration) -> Result<(), BatchError> {
        let caller = challenge.caller();
        if challenge.purpose() != Purpose::Local {
            if self.own == OWN_WAITING_MAX {
                return Err(BatchError::Full(OWN_WAITING_MAX));
            }
            self.own += 1;
            return Ok(());
        }
        self.rates.take(caller, now)?;
        self.local.take(caller)
    }

    /// Everybody who waits, unless a quote is in flight or nobody waits. `gone` says whose caller
    /// has left meanwhile: these are left out. Nothing is hashed yet, so a lock is held shortly.
    pub fn begin(&mut self, gone: impl Fn(&T) -> bool) -> Option<Batch<T>> {
        if self.in_flight {
            return None;
        }
        let entries: Vec<_> = self
            .take_all()
            .into_iter()
            .filter(|(_, reply)| !gone(reply))
            .map(|(challenge, reply)| (challenge.claims(self.node_key), reply))
            .collect();
        if entries.is_empty() {
            return None;
        }
        self.in_flight = true;
        Some(Batch {
            entries,
            tree: None,
        })
    }

    /// The quote of `batch` was made, or was not.
    pub fn complete(
        &mut self,
        batch: Batch<T>,
        quoted: Result<Arc<Quoted>, TpmError>,
    ) -> Answers<T> {
        self.in_flight = false;
        match &quoted {
            Ok(_) => {
                self.counters.quotes += 1;
                self.counters.challenges += batch.entries.len() as u64;
                self.counters.largest = self.counters.largest.max(batch.entries.len());
            }
            Err(_) => self.counters.errors += 1,
        }
        batch.answers(quoted)
    }

    /// Everybody who waits, since nobody will answer any more.
    pub fn abandon(&mut self) -> Vec<T> {
        let all = self.take_all().into_iter();
        all.map(|(_, reply)| reply).collect()
    }

    fn take_all(&mut self) -> Vec<(Challenge, T)> {
        self.local.clear();
        self.own = 0;
        std::mem::take(&mut self.waiting)
    }

    #[must_use]
    pub fn counters(&self) -> BatchCounters {
        BatchCounters {
            waiting: self.waiting.len(),
            ..self.counters
        }
    }
}

impl<T> Batch<T> {
    /// What the quote has to sign.
    pub fn qualifying_data(&mut self) -> Sha256 {
        let tree = self.tree.get_or_insert_with(|| tree_of(&self.entries));
        qualifying_data(tree.size(), tree.root())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn answers(self, quoted: Result<Arc<Quoted>, TpmError>) -> Answers<T> {
        Answers {
            tree: self.tree.unwrap_or_else(|| tree_of(&self.entries)),
            entries: self.entries.into_iter().enumerate(),
            quoted,
        }
    }
}

fn tree_of<T>(entries: &[(Claims, T)]) -> Tree {
    let leaves = entries.iter().map(|(claims, _)| claims.leaf()).collect();
    Tree::new(leaves).expect("somebody waits, and what may wait is what a tree may hold")
}

impl<T> Iterator for Answers<T> {
    type Item = (T, Result<Evidence, TpmError>);

    fn next(&mut self) -> Option<Self::Item> {
        let (at, (claims, reply)) = self.entries.next()?;
        let evidence = self.quoted.as_ref().map_err(Clone::clone);
        let evidence = evidence.map(|quoted| Evidence {
            claims,
            inclusion: self.tree.inclusion(at).expect("each entry is a leaf"),
            quoted: Arc::clone(quoted),
        });
        Some((reply, evidence))
    }
}
