//! `kedge doctor`: a line each, and under what is not well, what to do.

use kedge_api::{Diagnosis, Finding, Verdict};

#[must_use]
pub fn diagnosis(diagnosis: &Diagnosis) -> String {
    let mut text: String = diagnosis.findings.iter().map(finding).collect();
    let count = |verdict| {
        let of = |finding: &&Finding| finding.verdict == verdict;
        diagnosis.findings.iter().filter(of).count()
    };
    let [ok, warn, fail] = [Verdict::Ok, Verdict::Warn, Verdict::Fail].map(count);
    text += &format!("\n{ok} ok, {warn} to be known, {fail} failed\n");
    text
}

fn finding(finding: &Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let line = format!(
        "{verdict:<5} {:<10} {}: {}\n",
        finding.check, finding.object, finding.cause
    );
    match &finding.remedy {
        Some(remedy) => format!("{line}{:<17}remedy: {remedy}\n", ""),
        None => line,
    }
}
