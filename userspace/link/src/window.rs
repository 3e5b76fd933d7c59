//! The replay window: each number is taken once (the method of RFC 6479).

use crate::error::FlightError;
use crate::limits::WINDOW_NUMBERS;

const WORD_BITS: u64 = 64;
/// One word more than the window, so that a word can be cleared while all of the window stands.
const WORDS: u64 = WINDOW_NUMBERS / WORD_BITS + 1;

/// Which of the last 65,536 numbers were taken. Number 0 is never used.
pub(crate) struct ReplayWindow {
    words: Box<[u64]>,
    highest: u64,
}

impl ReplayWindow {
    pub(crate) fn new() -> Self {
        let words = usize::try_from(WORDS).expect("a thousand words");
        Self {
            words: vec![0; words].into(),
            highest: 0,
        }
    }

    /// The smallest number that may still be taken.
    pub(crate) fn oldest(&self) -> u64 {
        self.highest.saturating_sub(WINDOW_NUMBERS - 1).max(1)
    }

    /// Whether `number` may be taken. Changes nothing.
    pub(crate) fn check(&self, number: u64) -> Result<(), FlightError> {
        if number < self.oldest() {
            return Err(FlightError::TooOld(number));
        }
        if number <= self.highest && self.words[word(number)] & bit(number) != 0 {
            return Err(FlightError::Replayed(number));
        }
        Ok(())
    }

    /// Takes `number`: the one test-and-set. Only ever called for authenticated numbers.
    pub(crate) fn take(&mut self, number: u64) -> Result<(), FlightError> {
        self.check(number)?;
        self.advance(number);
        self.words[word(number)] |= bit(number);
        Ok(())
    }

    /// Moves the window so that `number` is in it, forgetting what falls out.
    fn advance(&mut self, number: u64) {
        if number <= self.highest {
            return;
        }
        let (from, to) = (self.highest / WORD_BITS, number / WORD_BITS);
        for index in from + 1..=to.min(from + WORDS) {
            self.words[word(index * WORD_BITS)] = 0;
        }
        self.highest = number;
    }
}

fn word(number: u64) -> usize {
    usize::try_from(number / WORD_BITS % WORDS).expect("below the number of words")
}

fn bit(number: u64) -> u64 {
    1 << (number % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const W: u64 = WINDOW_NUMBERS;

    /// Each line: what was taken before, what is tried, what must come of it.
    #[test]
    fn edges_of_the_window() {
        let ok = Ok(());
        let seen = |n| Err(FlightError::Replayed(n));
        let old = |n| Err(FlightError::TooOld(n));
        type Outcome = Result<(), FlightError>;
        let table: &[(&[u64], u64, Outcome)] = &[
            (&[], 0, old(0)),
            (&[], 1, ok),
            (&[], u64::MAX, ok),
            (&[1], 1, seen(1)),
            (&[2], 1, ok),
            (&[W], 1, ok),
            (&[1, W], 1, seen(1)),
            (&[W + 1], 1, old(1)),
            (&[W + 1], 2, ok),
            (&[2, W + 1], 2, seen(2)),
            (&[63, 64, 65], 64, seen(64)),
            (&[1, 2 * W], W, old(W)),
            (&[1, 2 * W], W + 1, ok),
            (&[1, 1 + W + 64], 1 + W + 64, seen(1 + W + 64)),
            // The word that a number shares, one round later, with one long gone is empty.
            (&[1], 1 + W + 64, ok),
            (&[u64::MAX], u64::MAX, seen(u64::MAX)),
            (&[u64::MAX], u64::MAX - W + 1, ok),
            (&[u64::MAX], u64::MAX - W, old(u64::MAX - W)),
        ];
        for (taken, number, expected) in table {
            let mut window = ReplayWindow::new();
            for earlier in *taken {
                window.take(*earlier).expect("not taken before");
            }
            assert_eq!(window.take(*number), *expected, "{taken:?} then {number}");
        }
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(
            steps in prop::collection::vec((0u64..6, 0u64..2 * W), 1..400)
        ) {
            let mut window = ReplayWindow::new();
            let (mut taken, mut highest) = (HashSet::new(), 0u64);
            for (jump, back) in steps {
                let number = (highest + jump * jump * 9_000).saturating_sub(back / (jump + 1));
                let too_old = number == 0 || highest >= W && number <= highest - W;
                let expected = if too_old {
                    Err(FlightError::TooOld(number))
                } else if !taken.insert(number) {
                    Err(FlightError::Replayed(number))
                } else {
                    Ok(())
                };
                prop_assert_eq!(window.take(number), expected);
                if expected.is_ok() {
                    highest = highest.max(number);
                }
            }
        }
    }
}
