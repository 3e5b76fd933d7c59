//! What others do to the network that kedge lives in: each leaves connections working, or is named
//! by kedge with a remedy that works; none leaves them in plaintext.
//!
//! ```text
//!  client ──────────┬── veth ──┬─ node a ─────┬─ wire ─ node b ─ load
//!    no route       │          │ rp_filter    │ MTU 1280
//!    egress policy ─┘    INPUT drop ──────────┘
//!    cgroups: another program at connect4 and getpeername4; nft: DNAT of service addresses
//! ```

mod network;
mod others;
mod services;
mod unreached;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use xtask::lab::Lab;
use xtask::lab::topology::{CLIENT, Node, Place};
use xtask::shell::wait_for;

/// A shell script that changes a node or pod, and one that undoes it.
struct Change {
    place: Place,
    apply: String,
    undo: String,
}

fn change(place: impl Into<Place>, apply: impl Into<String>, undo: impl Into<String>) -> Change {
    Change {
        place: place.into(),
        apply: apply.into(),
        undo: undo.into(),
    }
}

/// Applies the changes, acts, and undoes them whatever has happened.
fn changed(
    lab: &mut Lab,
    changes: &[Change],
    act: impl FnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    let run =
        |lab: &Lab, place: Place, script: &str| lab.run(place, &["sh", "-ec", script]).map(drop);
    let applied = changes
        .iter()
        .try_for_each(|one| run(lab, one.place, &one.apply));
    let acted = applied.and_then(|()| act(lab));
    let undone: Vec<_> = changes
        .iter()
        .map(|one| run(lab, one.place, &one.undo))
        .collect();
    acted?;
    undone.into_iter().collect()
}

/// What `kedge status` of node a says about `client`, if it says that it cannot be captured.
fn uncapturable(lab: &Lab) -> Result<Option<String>> {
    let status: Value = serde_json::from_str(&lab.kedge(Node::A, &["status", "--json"])?)?;
    let listed = status["capture"]["uncapturable"].as_array();
    let listed = listed.context("a list")?;
    let client = listed.iter().find(|one| one["id"] == CLIENT.spiffe_id());
    Ok(client.map(|one| one["reason"].to_string()))
}

fn becomes_uncapturable(lab: &Lab, because: &str) -> Result<()> {
    wait_for("client to be uncapturable", Duration::from_secs(10), || {
        let reason = uncapturable(lab)?;
        if let Some(reason) = &reason {
            ensure!(reason.contains(because), "{reason}");
        }
        Ok(reason.map(drop))
    })
}

/// What `kedge doctor` on node a finds; its exit code says whether something fails.
fn doctor(lab: &mut Lab) -> Result<Vec<Value>> {
    // A pod is tried from where one of its processes is.
    let _resident = lab.spawn(&CLIENT, "resident", &["sleep", "20"])?;
    let program = lab.tools.kedge.display().to_string();
    let socket = lab.run.node_folder(Node::A).join("admin.sock");
    let (socket, pins) = (socket.display().to_string(), lab.run.pins().join("a"));
    let pins = pins.display().to_string();
    let words = [
        &*program, "--json", "--socket", &socket, "doctor", "--bpffs", &pins,
    ];
    let done = lab.try_run(Node::A, &words)?;
    let said: Value = serde_json::from_slice(&done.stdout)
        .with_context(|| String::from_utf8_lossy(&done.stderr).into_owned())?;
    let findings = said["findings"].as_array().context("a list")?.clone();
    let fails = findings.iter().any(|finding| finding["verdict"] == "fail");
    ensure!(
        done.status.code() == Some(i32::from(fails)),
        "{:?}: {said:#}",
        done.status
    );
    Ok(findings)
}

/// Doctor finds nothing that fails, and has tried `client` by both families.
fn is_well(lab: &mut Lab) -> Result<()> {
    let findings = doctor(lab)?;
    let failed: Vec<_> = findings
        .iter()
        .filter(|one| one["verdict"] == "fail")
        .collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    let arrives = format!("arrives as {}", CLIENT.spiffe_id());
    let tried = findings
        .iter()
        .filter(|one| one["cause"].to_string().contains(&arrives));
    ensure!(tried.count() == 2, "by IPv4 and IPv6: {findings:#?}");
    Ok(())
}

/// Doctor names `cause` about the way of `client` to kedged, and `remedy`.
fn doctor_names(lab: &mut Lab, cause: &str, remedy: &str) -> Result<()> {
    let findings = doctor(lab)?;
    let about_client = |one: &&Value| {
        let object = one["object"].as_str().unwrap_or_default();
        one["check"] == "capture" && one["verdict"] == "fail" && object.ends_with("pods/client")
    };
    let said: Vec<_> = findings.iter().filter(about_client).collect();
    let names = |one: &&Value| {
        one["cause"].to_string().contains(cause) && one["remedy"].to_string().contains(remedy)
    };
    ensure!(
        said.iter().any(names),
        "{cause:?}, {remedy:?}: {findings:#?}"
    );
    Ok(())
}

/// Since `since`, node a has told exactly once of `client` in this kind, with that remedy.
fn told_once(lab: &Lab, since: u64, kind: &str, remedy: &str) -> Result<()> {
    let told = events(lab, since)?;
    let of_kind = |event: &&Value| event["kind"] == kind && event["source"] == CLIENT.spiffe_id();
    let told: Vec<_> = told.iter().filter(of_kind).collect();
    let [event] = told.as_slice() else {
        anyhow::bail!("{kind}: told {} times: {told:?}", told.len());
    };
    let said = event["remedy"].as_str().unwrap_or_default();
    ensure!(said.contains(remedy), "{event}");
    Ok(())
}

/// The number of the last event of node a.
fn last_event(lab: &Lab) -> Result<u64> {
    let numbers = events(lab, 0)?;
    let numbers = numbers.iter().filter_map(|event| event["number"].as_u64());
    Ok(numbers.max().unwrap_or_default())
}

fn events(lab: &Lab, since: u64) -> Result<Vec<Value>> {
    let since = since.to_string();
    let text = lab.kedge(Node::A, &["event", "list", "--since", &since, "--json"])?;
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().context("parse events")
}
