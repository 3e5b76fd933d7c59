//! What the machines have shown of each kernel: `vm-tests/seen.toml`, and from it the table in
//! README.md.

use super::kernels::Kernel;
use crate::artifacts::repository;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;

const FILE: &str = "vm-tests/seen.toml";
const TABLE_IN: &str = "README.md";
const BEGIN: &str = "<!-- vm-tests/seen.toml -->\n";
const END: &str = "<!-- end -->\n";
const SUITES: [&str; 3] = ["AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305"];

/// All kernels of one run in which no test failed.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    kernel: Vec<Row>,
    #[serde(default)]
    pair: Vec<PairRow>,
}

/// Two nodes on a machine each.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairRow {
    opens: String,
    accepts: String,
    passed: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// As uname(1) says it.
    release: String,
    /// Capture, guard and links between two nodes.
    capture: bool,
    /// Whose records the kernel sealed and opened between two nodes.
    kernel_records: Vec<String>,
    /// Whether it took a direction's next key where the last one was.
    keys_in_place: bool,
    passed: usize,
}

impl Seen {
    /// That `passed` tests of `kernel` passed, and none failed: so what is known of it holds.
    pub fn add(&mut self, kernel: &Kernel, release: String, passed: usize) {
        let sings = |name: &str| !kernel.silent_canaries.iter().any(|silent| silent == name);
        let records = kernel.capture && sings("kTLS") && sings("kTLS: control records");
        let suites = SUITES.iter().copied();
        let suites = suites.filter(|suite| records && sings(&format!("kTLS: {suite}")));
        self.kernel.push(Row {
            name: kernel.name.clone(),
            release,
            capture: kernel.capture,
            kernel_records: suites.map(str::to_owned).collect(),
            keys_in_place: records && sings("kTLS: key update"),
            passed,
        });
    }

    /// That as many passed on these two machines together, and none failed.
    pub fn add_pair(&mut self, [opens, accepts]: &[Kernel; 2], passed: usize) {
        self.pair.push(PairRow {
            opens: opens.name.clone(),
            accepts: accepts.name.clone(),
            passed,
        });
    }

    /// Tests on all of them.
    #[must_use]
    pub fn passed(&self) -> u64 {
        let kernels = self.kernel.iter().map(|row| row.passed);
        let pairs = self.pair.iter().map(|row| row.passed);
        kernels.chain(pairs).map(|passed| passed as u64).sum()
    }

    /// # Errors
    /// When the files cannot be written, or the README has no place for the table.
    pub fn record(&self) -> Result<()> {
        fs::write(repository().join(FILE), toml::to_string(self)?).context(FILE)?;
        let path = repository().join(TABLE_IN);
        let text = fs::read_to_string(&path).context(TABLE_IN)?;
        let (before, rest) = text.split_once(BEGIN).context("no place for the table")?;
        let (_, after) = rest.split_once(END).context("no end of the table")?;
        fs::write(
            &path,
            format!("{before}{BEGIN}{}{END}{after}", self.table()),
        )
        .context(TABLE_IN)?;
        println!("vm: {FILE} and the table in {TABLE_IN} say what was seen");
        Ok(())
    }

    fn table(&self) -> String {
        let mut table = String::from(
            "| Linux | Debian's build | capture, guard, links | records in the kernel | next key | tests |\n\
             | --- | --- | --- | --- | --- | --- |\n",
        );
        for row in &self.kernel {
            let capture = match row.capture {
                true => "yes",
                false => "no: `kedge feature probe` says what is missing",
            };
            let records = match row.kernel_records.len() {
                0 => "no".to_owned(),
                _ => row.kernel_records.join(", "),
            };
            let next = match (row.kernel_records.is_empty(), row.keys_in_place) {
                (true, _) => "–",
                (false, true) => "in place",
                (false, false) => "on another carrier",
            };
            writeln!(
                table,
                "| {} | {} | {capture} | {records} | {next} | {} |",
                row.name, row.release, row.passed
            )
            .expect("a string takes everything");
        }
        for pair in &self.pair {
            writeln!(
                table,
                "\nA node on Linux {} and one on Linux {}, each on a machine with a TPM of its own, attest each other and carry every \
                 shape in records of their kernels,\nwith keys that change hundreds of times: {} tests.",
                pair.opens, pair.accepts, pair.passed
            )
            .expect("a string takes everything");
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_table_of_what_was_seen_of_every_kernel() {
        let read = |name: &str| fs::read_to_string(repository().join(name)).expect(name);
        let seen: Seen = toml::from_str(&read(FILE)).expect(FILE);
        let kernels = super::super::kernels::choose(&[]).expect("the table");
        let names = kernels.iter().map(|kernel| &kernel.name);
        assert!(names.eq(seen.kernel.iter().map(|row| &row.name)));
        assert!(read(TABLE_IN).contains(&format!("{BEGIN}{}{END}", seen.table())));
    }

    #[test]
    fn what_is_known_to_be_missing_is_not_claimed() {
        let kernels = super::super::kernels::choose(&["5.10".to_owned(), "6.1".to_owned()]);
        let mut seen = Seen::default();
        for kernel in kernels.expect("both") {
            seen.add(&kernel, "a build".to_owned(), 7);
        }
        let table = seen.table();
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert!(rows[0].contains("| no | – | 7 |"), "{table}");
        assert!(rows[1].contains("| on another carrier | 7 |"), "{table}");
    }
}
