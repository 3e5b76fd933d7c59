//! Counting what a test harness says.

use std::fmt;

/// A test that cannot run here prints a line that begins so, with its reason, and returns.
pub const SKIP: &str = "SKIP: ";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    /// Those of them whose names were told.
    pub failures: Vec<String>,
    /// Reasons, one for each.
    pub skips: Vec<String>,
    /// What did not even come to testing, or ended outside of a test.
    pub broken: Vec<String>,
    /// What the user did not ask for: neither run nor skipped.
    pub not_asked: bool,
    /// Skips that the next result line will count as passed.
    told_as_passed: u64,
}

impl Tally {
    #[must_use]
    pub fn passed(passed: u64) -> Self {
        Self {
            passed,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn skip(reason: String) -> Self {
        Self {
            skips: vec![reason],
            ..Self::default()
        }
    }

    #[must_use]
    pub fn broken(what: String) -> Self {
        Self {
            broken: vec![what],
            ..Self::default()
        }
    }

    #[must_use]
    pub fn not_asked() -> Self {
        Self {
            not_asked: true,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skips.len()
    }

    /// Takes one line of libtest's output. A test that skips itself counts as passed there.
    pub fn line(&mut self, line: &str) {
        if let Some(reason) = line.strip_prefix(SKIP) {
            self.skips.push(reason.to_owned());
            self.told_as_passed += 1;
        } else if let Some(name) = failed_test(line) {
            self.failures.push(name.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            let told = std::mem::take(&mut self.told_as_passed);
            self.passed += count_of(counts, "passed").saturating_sub(told);
            self.failed += count_of(counts, "failed");
            let ignored = count_of(counts, "ignored");
            self.skips
                .extend((0..ignored).map(|_| "ignored".to_owned()));
        }
    }

    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
        self.broken.extend(other.broken);
    }
}

fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

fn count_of(counts: &str, what: &str) -> u64 {
    counts
        .split([';', '.'])
        .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
        .unwrap_or(0)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed,
            self.skipped()
        )?;
        self.broken
            .iter()
            .try_for_each(|what| write!(f, ", broken: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_not_a_pass() {
        let mut tally = Tally::default();
        for line in [
            "SKIP: needs tcpdump",
            "something else",
            "test a::b ... FAILED",
            "test result: ok. 3 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out",
        ] {
            tally.line(line);
        }
        assert_eq!((tally.passed, tally.failed), (2, 1));
        assert_eq!(tally.failures, ["a::b"]);
        assert_eq!(tally.skips, ["needs tcpdump"]);
    }
}
