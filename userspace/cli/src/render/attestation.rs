//! `kedge attest`.

use super::quantity::duration;
use super::table::fields;
use kedge_api::{AttestationMode, AttestationStatus, OwnResult, PeerResult};

#[must_use]
pub fn attestation(status: &AttestationStatus) -> String {
    let mut rows = vec![
        ("mode", mode(status.mode).to_owned()),
        ("TPM", tpm(status)),
        ("result", result(status)),
    ];
    for (at, peer) in status.peers.iter().enumerate() {
        let name = if at == 0 { "peers" } else { "" };
        rows.push((name, shown(peer)));
    }
    for (at, (name, count)) in status.counters.iter().enumerate() {
        let heading = if at == 0 { "counters" } else { "" };
        rows.push((heading, format!("{name} {count}")));
    }
    fields(&rows)
}

#[must_use]
pub fn own_result(result: &OwnResult) -> String {
    fields(&[
        ("verifier", result.verifier.clone()),
        ("issued", result.issued.to_string()),
        ("fresh", fresh(result)),
        ("policy", result.policy.clone()),
        (
            "TPM",
            format!("reset {}, restart {}", result.reset, result.restart),
        ),
    ])
}

/// All of it in the one line that `kedge status` has.
pub(super) fn attestation_line(status: &AttestationStatus) -> String {
    match status.mode {
        AttestationMode::Off => mode(status.mode).to_owned(),
        _ => format!("{}, {}", mode(status.mode), result(status)),
    }
}

fn mode(mode: AttestationMode) -> &'static str {
    match mode {
        AttestationMode::Off => "off",
        AttestationMode::Optional => "optional",
        AttestationMode::Required => "required",
    }
}

fn tpm(status: &AttestationStatus) -> String {
    match (&status.ak, &status.tpm_error) {
        (Some(ak), _) => format!("AK {ak}"),
        (None, Some(error)) => error.clone(),
        (None, None) => "not open".to_owned(),
    }
}

fn result(status: &AttestationStatus) -> String {
    let why = status.result_error.as_ref();
    let why = why.map_or_else(String::new, |why| format!("; no newer one: {why}"));
    match &status.result {
        Some(result) => format!("by {}, {}{why}", result.verifier, fresh(result)),
        None => format!("none{}", why.replace("no newer one: ", "")),
    }
}

fn fresh(result: &OwnResult) -> String {
    match u64::try_from(result.fresh_for_s) {
        Ok(left) => format!("fresh for {}", duration(left)),
        Err(_) => format!("stale for {}", duration(result.fresh_for_s.unsigned_abs())),
    }
}

fn shown(peer: &PeerResult) -> String {
    let by = peer.verifier.as_ref();
    let by = by.map_or_else(String::new, |verifier| format!(", by {verifier}"));
    let why = peer.error.as_ref();
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    format!("{}: {}{by}{why}", peer.peer, peer.standing)
}
