//! The one destination that is the daemon itself. `kedge doctor` connects to it from a workload's
//! cgroup and network namespace, and so goes the whole way of the workload's own connections:
//! captured, routed, accepted, its claim taken.

use crate::dataplane::classify::source_of;
use crate::dataplane::worker::Worker;
use kedge_api::Probe;
use kedge_capture::Claim;
use kedge_model::SourceAddr;
use kedge_sys::socket::end_on_close;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Tells whoever connected, in one line, what the daemon takes it for, and ends.
pub async fn answer(worker: &Worker, mut near: TcpStream, claim: &Claim, from: SocketAddr) {
    let answer = {
        let world = worker.world.load();
        let source = source_of(&world, claim, SourceAddr::new(from));
        Probe {
            node: world.node.clone(),
            client: from,
            netns_cookie: claim.netns_cookie,
            workload: source.as_ref().ok().map(|workload| workload.id.clone()),
            refusal: source.err().map(|refused| refused.refusal),
        }
    };
    let mut line = serde_json::to_vec(&answer).expect("plain text keys");
    line.push(b'\n');
    // A new connection has room for a line; one that is gone needs none.
    let _ = near.write_all(&line).await;
    let _ = end_on_close(&near);
}
