//! Links, flows and features: one a line.

use super::quantity::{bytes, duration, or_dash, short};
use super::table::table;
use kedge_api::{
    Features, Flow, FlowPhase, FlowRole, Flows, Link, LinkState, Links, Sockets, TlsRole,
};

/// `kedge link list`.
#[must_use]
pub fn links(answer: &Links) -> String {
    let heading = [
        "PEER",
        "STATE",
        "ROLE",
        "GROUP",
        "TLS SUITE",
        "FLOW SUITE",
        "AGE",
        "OPENED",
        "ACCEPTED",
        "IDENTITIES",
        "HANDSHAKES",
        "LAST ERROR",
    ];
    table(heading, answer.links.iter().map(link).collect())
}

fn link(link: &Link) -> [String; 12] {
    [
        short(&link.peer),
        link_state(link.state).to_owned(),
        match link.role {
            TlsRole::Client => "client",
            TlsRole::Server => "server",
        }
        .to_owned(),
        or_dash(link.group.as_ref()),
        or_dash(link.tls_suite.as_ref()),
        or_dash(link.flow_suite),
        duration(link.age_s),
        link.flows_opened.to_string(),
        link.flows_accepted.to_string(),
        link.identities.to_string(),
        link.handshakes_total.to_string(),
        or_dash(link.last_error.as_ref()),
    ]
}

fn link_state(state: LinkState) -> &'static str {
    match state {
        LinkState::Connecting => "connecting",
        LinkState::Established => "established",
        LinkState::Draining => "draining",
        LinkState::Failed => "failed",
    }
}

/// `kedge flow list`.
#[must_use]
pub fn flows(answer: &Flows) -> String {
    let heading = [
        "ID",
        "ROLE",
        "PHASE",
        "SOURCE",
        "DESTINATION",
        "CLIENT",
        "ASKED FOR",
        "ENDPOINT",
        "PEER",
        "SUITE",
        "SENT",
        "RECEIVED",
        "RECORDS",
        "KEYS",
        "KERNEL",
        "AGE",
        "IDLE",
    ];
    table(heading, answer.flows.iter().map(flow).collect())
}

fn flow(flow: &Flow) -> [String; 17] {
    [
        format!("{}.{}", flow.worker, flow.id),
        flow_role(flow.role).to_owned(),
        flow_phase(flow.phase).to_owned(),
        or_dash(flow.source.as_ref().map(short)),
        or_dash(flow.destination.as_ref().map(short)),
        flow.client.to_string(),
        flow.original_destination.to_string(),
        or_dash(flow.endpoint),
        flow.peer.as_ref().map_or("local".to_owned(), short),
        or_dash(flow.suite),
        bytes(flow.bytes_sent),
        bytes(flow.bytes_received),
        format!("{}/{}", flow.record_sent, flow.record_received),
        format!(
            "{}/{}",
            flow.key_generation_sent, flow.key_generation_received
        ),
        match (flow.kernel_sends, flow.kernel_receives) {
            (false, false) => "-",
            (true, false) => "sends",
            (false, true) => "receives",
            (true, true) => "both",
        }
        .to_owned(),
        duration(flow.age_s),
        duration(flow.idle_s),
    ]
}

fn flow_role(role: FlowRole) -> &'static str {
    match role {
        FlowRole::Opener => "opener",
        FlowRole::Acceptor => "acceptor",
        FlowRole::Local => "local",
    }
}

fn flow_phase(phase: FlowPhase) -> &'static str {
    match phase {
        FlowPhase::Classifying => "classifying",
        FlowPhase::Linking => "linking",
        FlowPhase::Connecting => "connecting",
        FlowPhase::Answering => "answering",
        FlowPhase::Open => "open",
        FlowPhase::HalfClosed => "half-closed",
        FlowPhase::Closing => "closing",
    }
}

/// `kedge socket list`.
#[must_use]
pub fn sockets(answer: &Sockets) -> String {
    let rows = answer.sockets.iter().map(|socket| {
        [
            short(&socket.id),
            socket.uid.clone(),
            socket.local.to_string(),
            socket.remote.to_string(),
            socket.pid.to_string(),
            socket.command.clone(),
        ]
    });
    let heading = ["WORKLOAD", "UID", "LOCAL", "REMOTE", "PID", "COMMAND"];
    table(heading, rows.collect())
}

/// `kedge feature probe`.
#[must_use]
pub fn features(answer: &Features) -> String {
    let rows = answer.features.iter().map(|feature| {
        let verdict = match (feature.available, feature.required) {
            (true, _) => "available",
            (false, true) => "missing",
            (false, false) => "missing (optional)",
        };
        [
            feature.name.clone(),
            verdict.to_owned(),
            feature.reason.clone(),
        ]
    });
    format!("kernel {}\n\n", answer.kernel)
        + &table(["FEATURE", "VERDICT", "REASON"], rows.collect())
}
