//! The last leg: from this node's daemon to a workload of this node, which sees the true client.

use crate::dataplane::registry::Parties;
use crate::links::connected;
use kedge_capture::Claims;
use kedge_model::Refusal;
use kedge_sys::socket::Dial;
use std::io;
use tokio::net::TcpStream;

/// Connects to the flow's endpoint. The programs are told by the socket's cookie, before its
/// first packet, whom the server shall see.
pub async fn deliver(claims: &Claims, parties: &Parties) -> Result<TcpStream, Refusal> {
    let dial = Dial::new(parties.endpoint).map_err(|_| Refusal::OverLimit)?;
    let cookie = dial.cookie().map_err(|_| Refusal::Internal)?;
    claims
        .file_delivery(cookie, parties.client.socket_addr())
        .map_err(|_| Refusal::OverLimit)?;
    let started = dial.start().and_then(TcpStream::from_std);
    let stream = started.map_err(|error| {
        // The program that takes the entry may never have run.
        let _ = claims.withdraw_delivery(cookie);
        refusal(&error)
    })?;
    connected(&stream).await.map_err(|error| refusal(&error))?;
    Ok(stream)
}

fn refusal(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Refusal::WorkloadRefused,
        io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::ConnectionReset => Refusal::WorkloadUnreachable,
        _ => Refusal::Internal,
    }
}
