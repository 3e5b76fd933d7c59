//! `kedge event`: a line when it happens, and under it what decided and what to do.

use super::quantity::short;
use kedge_api::Event;

#[must_use]
pub fn event(event: &Event) -> String {
    let about = about(event);
    let colon = if about.is_empty() { "" } else { ": " };
    let mut lines = format!(
        "{}  {:<18}  {about}{colon}{}\n",
        event.time,
        event.kind.label(),
        event.cause
    );
    let decided_by = event.decided_by.map(|by| format!("decided by: {by}"));
    let remedy = event
        .remedy
        .as_ref()
        .map(|remedy| format!("remedy: {remedy}"));
    for below in decided_by.into_iter().chain(remedy) {
        lines += &format!("{:<26}{below}\n", "");
    }
    lines
}

/// Whom it concerns: `default/client 10.1.2.3:40000 -> default/web 10.30.0.1:80 via b`.
fn about(event: &Event) -> String {
    let source = [
        event.source.as_ref().map(short),
        event.client.map(|at| at.to_string()),
    ];
    let destination = [
        event.destination.as_ref().map(short),
        event.original_destination.map(|at| at.to_string()),
    ];
    let source = joined(source);
    let destination = joined(destination);
    let arrow = if destination.is_empty() {
        String::new()
    } else {
        format!("-> {destination}")
    };
    let peer = event
        .peer
        .as_ref()
        .map(|peer| format!("via {}", short(peer)));
    let words = [Some(source), Some(arrow), peer];
    words
        .into_iter()
        .flatten()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn joined(words: [Option<String>; 2]) -> String {
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
