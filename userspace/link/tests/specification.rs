//! Goal: docs/protocol.md and the code state the same refusal codes and the same numbers.

use kedge_link::limits as link;
use kedge_model::Refusal;
use kedge_record::limits as record;

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// The cells of each line of a table that starts with `| <cell> |`, for cells that `accept` takes.
fn rows(accept: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    PAGE.lines()
        .filter(|line| line.starts_with('|'))
        .map(cells)
        .filter(|c| accept(&c[0]))
        .collect()
}

#[test]
fn every_refusal_code_is_in_the_specification_under_its_label() {
    let section = PAGE.split("### Refusal codes").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its end");
    for refusal in Refusal::ALL {
        let row = format!("| {} | `{}`", refusal.code(), refusal.label());
        assert!(section.contains(&row), "{row} is missing");
    }
    let listed = section.lines().filter(|line| line.contains("| `")).count();
    assert_eq!(listed, Refusal::ALL.len());
}

#[test]
fn every_number_of_the_specification_is_that_of_the_code() {
    let numbers = [
        ("HANDSHAKE_TIMEOUT", link::HANDSHAKE_TIMEOUT.as_secs()),
        ("FRAME_VALUE_MAX", link::FRAME_VALUE_MAX as u64),
        (
            "ATTESTATION_RESULT_MAX",
            link::ATTESTATION_RESULT_MAX as u64,
        ),
        ("ATTESTATION_TEXT_MAX", link::ATTESTATION_TEXT_MAX as u64),
        ("OFFERS_MAX", link::OFFERS_MAX as u64),
        ("IDENTITIES_MAX", link::IDENTITIES_MAX as u64),
        ("WINDOW_NUMBERS", link::WINDOW_NUMBERS),
        ("EPOCH_NUMBERS", link::EPOCH_NUMBERS),
        ("EPOCH_AGE", link::EPOCH_AGE.as_secs()),
        ("EPOCHS_AHEAD_MAX", link::EPOCHS_AHEAD_MAX.into()),
        ("EPOCH_GRACE", link::EPOCH_GRACE.as_secs()),
        ("RECORD0_PLAINTEXT_MAX", link::RECORD0_PLAINTEXT_MAX as u64),
        (
            "DESTINATION_INSTANCE_MAX",
            link::DESTINATION_INSTANCE_MAX as u64,
        ),
        ("ANSWER_PLAINTEXT_MAX", link::ANSWER_PLAINTEXT_MAX as u64),
        ("DENIAL_TEXT_MAX", link::DENIAL_TEXT_MAX as u64),
        ("DRAIN", link::DRAIN.as_secs()),
        ("RECORDS_PER_KEY_MAX", record::RECORDS_PER_KEY_MAX),
        ("KEY_UPDATE_MARGIN", record::KEY_UPDATE_MARGIN),
        ("RECORDS_PER_UPDATE_MIN", record::RECORDS_PER_UPDATE_MIN),
    ];
    let table = rows(|cell| cell.starts_with('`') && cell.to_uppercase() == cell);
    assert_eq!(table.len(), numbers.len());
    for (row, (name, value)) in table.iter().zip(numbers) {
        let stated = row[1].split_whitespace().next().expect("a number");
        assert_eq!(
            (row[0].as_str(), stated),
            (format!("`{name}`").as_str(), value.to_string().as_str())
        );
    }
}
