//! The ratchet of opener secrets: one way, so that what is erased cannot be derived again.

use crate::error::{Exhausted, FlightError};
use crate::limits::{EPOCH_AGE, EPOCH_GRACE, EPOCH_NUMBERS, EPOCHS_AHEAD_MAX};
use crate::schedule::Secret;
use std::collections::VecDeque;
use std::time::Instant;

fn next(secret: &Secret) -> Secret {
    secret.expand("kedge ratchet", b"")
}

/// The opener's side: the secret of one epoch, the newest.
pub(crate) struct OpenerEpoch {
    number: u32,
    secret: Secret,
    began: Instant,
    taken: u64,
}

impl OpenerEpoch {
    pub(crate) fn new(epoch0: Secret, now: Instant) -> Self {
        Self {
            number: 0,
            secret: epoch0,
            began: now,
            taken: 0,
        }
    }

    /// The epoch of the next flow and its secret. Moves to the next epoch after 4,096 numbers or
    /// 60 s; the used secret is erased.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(u32, &Secret), Exhausted> {
        if self.taken >= EPOCH_NUMBERS || now.saturating_duration_since(self.began) >= EPOCH_AGE {
            self.number = self.number.checked_add(1).ok_or(Exhausted)?;
            self.secret = next(&self.secret);
            self.began = now;
            self.taken = 0;
        }
        self.taken += 1;
        Ok((self.number, &self.secret))
    }
}

/// The acceptor's side: the newest authenticated epoch, and those before it until they end.
pub(crate) struct AcceptorEpochs {
    /// Consecutive epochs; the last one is the newest authenticated and never ends.
    kept: VecDeque<Epoch>,
}

struct Epoch {
    number: u32,
    secret: Secret,
    ends: Option<End>,
}

/// When an older epoch's secret is erased: at a time, or when the window has passed its numbers.
#[derive(Clone, Copy)]
struct End {
    at: Instant,
    /// A number that a newer epoch used: every number of this epoch is smaller.
    below: u64,
}

impl AcceptorEpochs {
    pub(crate) fn new(epoch0: Secret) -> Self {
        Self {
            kept: VecDeque::from([Epoch {
                number: 0,
                secret: epoch0,
                ends: None,
            }]),
        }
    }

    /// Expands the secret of `epoch` without keeping anything that was derived on the way.
    pub(crate) fn expand(
        &self,
        epoch: u32,
        label: &str,
        context: &[u8],
    ) -> Result<Secret, FlightError> {
        let oldest = self
            .kept
            .front()
            .expect("the newest epoch is always kept")
            .number;
        let kept = epoch
            .checked_sub(oldest)
            .ok_or(FlightError::EpochErased(epoch))?;
        if let Some(epoch) = self.kept.get(kept as usize) {
            return Ok(epoch.secret.expand(label, context));
        }
        let ahead = epoch - self.newest().number;
        if ahead > EPOCHS_AHEAD_MAX {
            return Err(FlightError::EpochTooFar(epoch));
        }
        let derived = (1..ahead).fold(next(&self.newest().secret), |secret, _| next(&secret));
        Ok(derived.expand(label, context))
    }

    /// Notes that a flow of `epoch` with `number` was authenticated at `now`.
    pub(crate) fn authenticated(&mut self, epoch: u32, number: u64, now: Instant) {
        while self.newest().number < epoch {
            let secret = next(&self.newest().secret);
            let number = self.newest().number + 1;
            self.kept.push_back(Epoch {
                number,
                secret,
                ends: None,
            });
        }
        for older in self.kept.iter_mut().take_while(|kept| kept.number < epoch) {
            let end = older.ends.get_or_insert(End {
                at: now + EPOCH_GRACE,
                below: number,
            });
            end.below = end.below.min(number);
        }
        while self.kept.len() > EPOCHS_AHEAD_MAX as usize + 1 {
            self.kept.pop_front();
        }
    }

    /// Erases every epoch that has ended: at `now`, or because only numbers from `oldest` on can
    /// still be taken.
    pub(crate) fn expire(&mut self, now: Instant, oldest: u64) {
        let ended = |end: End| end.at <= now || end.below <= oldest;
        while self
            .kept
            .front()
            .is_some_and(|epoch| epoch.ends.is_some_and(ended))
        {
            self.kept.pop_front();
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.kept.front()?.ends.map(|end| end.at)
    }

    fn newest(&self) -> &Epoch {
        self.kept.back().expect("the newest epoch is always kept")
    }
}
