//! `kedge doctor`: what is in the way on this node.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was asked, such as `capture`.
    pub check: String,
    /// Of what, such as a workload's cgroup.
    pub object: String,
    pub verdict: Verdict,
    /// What was found.
    pub cause: String,
    /// What to do; null when there is nothing to do.
    pub remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It works, and differs from what one may expect.
    Warn,
    Fail,
}

impl Diagnosis {
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let failed = |finding: &Finding| finding.verdict == Verdict::Fail;
        self.findings.iter().any(failed)
    }
}

impl Finding {
    #[must_use]
    pub fn ok(check: &str, object: impl ToString, found: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            object: object.to_string(),
            verdict: Verdict::Ok,
            cause: found.into(),
            remedy: None,
        }
    }

    #[must_use]
    pub fn warn(
        check: &str,
        object: impl ToString,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warn,
            remedy: Some(remedy.into()),
            ..Self::ok(check, object, cause)
        }
    }

    #[must_use]
    pub fn fail(
        check: &str,
        object: impl ToString,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(check, object, cause, remedy)
        }
    }
}
