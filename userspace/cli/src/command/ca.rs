//! The embedded CA.

use crate::arguments::IssueArguments;
use crate::failure::{Exit, Failure};
use kedge_identity::{Ca, SvidPaths};
use kedge_model::{SpiffeId, TrustDomain};
use rustls_pki_types::UnixTime;
use std::fs;
use std::path::Path;
use std::time::Duration;

pub fn init(dir: &Path, trust_domain: &TrustDomain) -> Result<Exit, Failure> {
    Ca::init(dir, trust_domain, UnixTime::now())?;
    eprintln!(
        "kedge: made a CA for {trust_domain} in {}; keep ca.key to yourself",
        dir.display()
    );
    Ok(Exit::Done)
}

pub fn issue(what: &IssueArguments) -> Result<Exit, Failure> {
    let ca = Ca::open(&what.dir)?;
    let (id, name) = subject(what, ca.trust_domain())?;
    let lifetime =
        Duration::try_from_secs_f64(what.lifetime_hours * 3600.0).unwrap_or(Duration::ZERO);
    let issued = ca.issue(&id, lifetime, UnixTime::now())?;
    fs::create_dir_all(&what.out).map_err(|source| Failure::Write {
        path: what.out.clone(),
        source,
    })?;
    let paths = SvidPaths::in_dir(&what.out, name);
    issued.write(&paths)?;
    eprintln!(
        "kedge: issued {id}, valid for {} h: {}",
        what.lifetime_hours,
        paths.certificate.display()
    );
    Ok(Exit::Done)
}

/// Whose certificate it is, and the name of its files.
fn subject(
    what: &IssueArguments,
    trust_domain: &TrustDomain,
) -> Result<(SpiffeId, &'static str), Failure> {
    if let Some(node) = &what.node {
        return Ok((SpiffeId::node(trust_domain, node), "node"));
    }
    let text = what.workload.clone().unwrap_or_default();
    let (namespace, account) = text
        .split_once('/')
        .ok_or_else(|| Failure::WorkloadName(text.clone()))?;
    Ok((
        SpiffeId::workload(trust_domain, namespace, account)?,
        "workload",
    ))
}
