//! What kedged itself says, if it answers.

use crate::arguments::Arguments;
use crate::client::Client;
use crate::failure::Failure;
use kedge_api::{Finding, Link, LinkState, Links, Status, path};

pub fn ask(arguments: &Arguments) -> Result<Vec<Finding>, Failure> {
    let client = Client::new(arguments.socket())?;
    let object = arguments.socket().display().to_string();
    let status: Status = match client.get(path::STATUS) {
        Ok(status) => status,
        Err(failure) => {
            let remedy = "start kedged, or say where it is: --run-dir DIR or --socket PATH";
            let finding = Finding::fail("daemon", object, failure.report(), remedy);
            return Ok(vec![finding]);
        }
    };
    let mut findings = vec![Finding::ok(
        "daemon",
        object,
        format!("{} answers, pid {}", status.node, status.pid),
    )];
    findings.extend(status.capture.uncapturable.into_iter().map(|workload| {
        let remedy = "see what `capture` of this workload says below";
        Finding::fail("daemon", workload.id, workload.reason, remedy)
    }));
    let links: Links = client.get(path::LINKS)?;
    let failed = |link: &Link| link.state == LinkState::Failed;
    findings.extend(links.links.into_iter().filter(failed).map(link_failed));
    Ok(findings)
}

fn link_failed(link: Link) -> Finding {
    Finding::fail(
        "link",
        link.peer,
        link.last_error.unwrap_or_default(),
        "start kedged there, and let TCP to its peer port in through the firewalls of both nodes",
    )
}
