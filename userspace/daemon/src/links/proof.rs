//! What peers have proven on their links. Flows rest on it for as long as they live, which may be
//! longer than the link: so a proof is kept while anything rests on it, and can be lost.

use arc_swap::{ArcSwap, ArcSwapOption};
use kedge_attest::Held;
use kedge_identity::{PeerIdentity, SvidError, Trust};
use kedge_model::Refusal;
use rustls_pki_types::UnixTime;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// The certificate chain of one peer on one link, and whether it still counts.
#[derive(Debug)]
pub struct Proof {
    pub peer: PeerIdentity,
    /// The newest Attestation Result of it that was believed.
    attested: ArcSwapOption<Held>,
    lost: OnceLock<Refusal>,
}

impl Proof {
    pub fn new(peer: PeerIdentity) -> Arc<Self> {
        Arc::new(Self {
            peer,
            attested: ArcSwapOption::empty(),
            lost: OnceLock::new(),
        })
    }

    /// Its Attestation Result was believed.
    pub fn attest(&self, held: Held) {
        self.attested.store(Some(Arc::new(held)));
    }

    pub fn attested(&self) -> Option<Arc<Held>> {
        self.attested.load_full()
    }

    /// Nothing may rest on it any more; whether anything could until now.
    pub fn withdraw(&self, refusal: Refusal) -> bool {
        self.lost.set(refusal).is_ok()
    }

    /// Whether flows may rest on it.
    pub fn holds(&self) -> Result<(), Refusal> {
        self.lost.get().map_or(Ok(()), |refusal| Err(*refusal))
    }
}

/// Whom this node believes, and all proofs on which something rests.
pub struct Proofs {
    trust: ArcSwap<Trust>,
    known: Mutex<Vec<Weak<Proof>>>,
}

/// A proof that has just been lost, and why.
pub type Lost = (Arc<Proof>, SvidError);

impl Proofs {
    pub fn new(trust: Trust) -> Self {
        Self {
            trust: ArcSwap::from_pointee(trust),
            known: Mutex::default(),
        }
    }

    pub fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    /// Takes a new proof, unless it was lost since its handshake began: whoever changes what is
    /// believed finds it here, or it finds the change.
    pub fn admit(&self, proof: &Arc<Proof>, now: UnixTime) -> Result<(), SvidError> {
        let mut known = self.lock();
        known.retain(|known| known.strong_count() > 0);
        known.push(Arc::downgrade(proof));
        drop(known);
        proof.peer.verify_again(&self.trust(), now)
    }

    /// From now on these anchors and revocations count, for old proofs too.
    pub fn believe(&self, trust: Trust, now: UnixTime) -> Vec<Lost> {
        let trust = Arc::new(trust);
        self.trust.store(Arc::clone(&trust));
        self.lose(|proof| match proof.peer.verify_again(&trust, now) {
            Ok(()) | Err(SvidError::Expired { .. }) => None,
            Err(error) => Some(error),
        })
    }

    /// A proof that has come to its end counts on while its node `has_renewed` it: long flows
    /// outlive many certificates.
    pub fn expire(&self, now: UnixTime, has_renewed: impl Fn(&Proof) -> bool) -> Vec<Lost> {
        self.lose(|proof| {
            let not_after = proof.peer.not_after();
            let ended = now >= not_after && !has_renewed(proof);
            ended.then_some(SvidError::Expired { not_after, now })
        })
    }

    /// All on which something rests.
    pub fn all(&self) -> Vec<Arc<Proof>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    fn lose(&self, error: impl Fn(&Proof) -> Option<SvidError>) -> Vec<Lost> {
        let known = self.all();
        let lost = |proof: Arc<Proof>| {
            let error = error(&proof)?;
            let newly = proof.lost.set(refusal(&error)).is_ok();
            newly.then_some((proof, error))
        };
        known.into_iter().filter_map(lost).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Proof>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(error: &SvidError) -> Refusal {
    match error {
        SvidError::Expired { .. } | SvidError::NotYetValid { .. } => Refusal::PeerExpired,
        SvidError::RevokedLeaf(_) | SvidError::RevokedNode(_) => Refusal::PeerRevoked,
        _ => Refusal::PeerUntrusted,
    }
}
