//! New flows while strangers flood the peer port of the node that they go to.

use super::Amounts;
use super::figures::{Figures, KEDGE};
use super::rounds::{kedge, number};
use crate::lab::Lab;
use crate::strangers;
use anyhow::Result;
use std::thread::sleep;
use std::time::Duration;

/// Until there are as many strangers as there will be at once.
const RISE: Duration = Duration::from_millis(500);

/// Half a handshake is what costs the daemon most, a silent connection what holds a place longest.
const STRANGERS: [(&str, [&str; 2]); 2] = [
    (
        "tls-hello",
        ["flood_hello_open_p99_ms", "flood_hello_open_max_ms"],
    ),
    (
        "silent",
        ["flood_silent_open_p99_ms", "flood_silent_open_max_ms"],
    ),
];

/// Every flow opens; how long the slowest takes is the figure.
pub fn flooded(lab: &Lab, amounts: &Amounts, figures: &mut Figures) -> Result<()> {
    for (stranger, [p99, max]) in STRANGERS {
        let mut flood = strangers::flood(lab, stranger)?;
        sleep(RISE);
        let opened = kedge(lab, &["connect", "--count", amounts.flows_in_flood])?;
        flood.goes_on()?;
        figures.add(KEDGE, p99, "ms", number(&opened, "p99_us")? / 1e3);
        figures.add(KEDGE, max, "ms", number(&opened, "max_us")? / 1e3);
    }
    Ok(())
}
