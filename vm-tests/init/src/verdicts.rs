//! What libtest prints, as one verdict a test.

use serde::Serialize;

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The run of the plan.
    pub run: String,
    pub test: String,
    pub passed: bool,
}

impl Verdict {
    pub fn failed(run: &str, test: &str) -> Self {
        Self {
            run: run.to_owned(),
            test: test.to_owned(),
            passed: false,
        }
    }
}

/// From lines like `test name ... ok`. An ignored test has no verdict.
pub fn read(run: &str, text: &str) -> Vec<Verdict> {
    let verdict = |line: &str| {
        let (test, end) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        let passed = match end {
            "ok" => true,
            "FAILED" => false,
            _ => return None,
        };
        Some(Verdict {
            run: run.to_owned(),
            test: test.to_owned(),
            passed,
        })
    };
    text.lines().filter_map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_test_is_a_verdict_and_no_other_line_is() {
        let text = "running 3 tests\ntest a::b ... ok\ntest c ... FAILED\ntest d ... ignored\n\
                    test result: FAILED. 1 passed; 1 failed\n";
        let read: Vec<_> = read("p", text)
            .into_iter()
            .map(|v| (v.test, v.passed))
            .collect();
        assert_eq!(read, [("a::b".to_owned(), true), ("c".to_owned(), false)]);
    }
}
