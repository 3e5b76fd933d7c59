//! From the API's types to text. Pure: golden files in tests/golden hold every table.

mod attestation;
mod diagnosis;
mod event;
mod explanation;
mod lists;
mod quantity;
mod status;
mod table;

pub use attestation::{attestation, own_result};
pub use diagnosis::diagnosis;
pub use event::event;
pub use explanation::explanation;
pub use lists::{features, flows, links, sockets};
pub use status::status;
pub use table::fields;

use serde::Serialize;

/// One answer of `--json`.
pub fn json(answer: &impl Serialize) -> String {
    serde_json::to_string_pretty(answer).expect(PLAIN) + "\n"
}

/// One answer of `--json` on one line.
pub fn json_line(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect(PLAIN) + "\n"
}

const PLAIN: &str = "the API's types are structs and maps with text keys";
