//! Tables without borders: columns two spaces apart, as in kubectl.

use comfy_table::{Table, presets};

/// Rows under a heading.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(heading)
        .add_rows(rows);
    trimmed(table)
}

/// One thing, a field a line. A field with an empty name continues the one above it.
#[must_use]
pub fn fields(rows: &[(&str, String)]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.add_rows(rows.iter().map(|(name, value)| [name, value.as_str()]));
    trimmed(table)
}

fn trimmed(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}
