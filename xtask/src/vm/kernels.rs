//! The table of kernels, `vm-tests/kernels.toml`.

use crate::artifacts::repository;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fs;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    pub name: String,
    pub suite: String,
    pub series: String,
    pub packages: Vec<Package>,
    pub tpm: Option<TpmInterface>,
    pub capture: bool,
    pub second_suite: String,
    pub silent_canaries: Vec<String>,
}

/// How a machine speaks to its TPM, as QEMU calls it (TCG PC Client Platform TPM Profile, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TpmInterface {
    TpmTis,
    TpmCrb,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub name: String,
    /// `None`: the archive's own signed index answers for it.
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kernel: Vec<Kernel>,
    pair: Vec<Pair>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    opens: String,
    accepts: String,
}

/// All kernels, or those that are named.
///
/// # Errors
/// When the table cannot be read, or has no such kernel.
pub fn choose(names: &[String]) -> Result<Vec<Kernel>> {
    let table = table()?;
    if names.is_empty() {
        return Ok(table.kernel);
    }
    let known: Vec<_> = table
        .kernel
        .iter()
        .map(|kernel| kernel.name.clone())
        .collect();
    if let Some(odd) = names.iter().find(|name| !known.contains(name)) {
        bail!(
            "no kernel {odd:?} in vm-tests/kernels.toml; there are {}",
            known.join(", ")
        );
    }
    Ok(table
        .kernel
        .into_iter()
        .filter(|kernel| names.contains(&kernel.name))
        .collect())
}

/// The kernels of two machines whose nodes are tested with each other in every run.
///
/// # Errors
/// When the table cannot be read, or a pair's kernel is not in it.
pub fn pairs() -> Result<Vec<[Kernel; 2]>> {
    let pairs = table()?.pair.into_iter();
    pairs.map(|both| pair(&both.opens, &both.accepts)).collect()
}

/// These two.
///
/// # Errors
/// When the table has no such kernel, or kedge cannot be loaded on one.
pub fn pair(opens: &str, accepts: &str) -> Result<[Kernel; 2]> {
    Ok([capturing(opens)?, capturing(accepts)?])
}

/// The one of that name.
///
/// # Errors
/// When the table has no such kernel, or kedge cannot be loaded on it.
pub fn capturing(name: &str) -> Result<Kernel> {
    let kernel = choose(&[name.to_owned()])?.remove(0);
    ensure!(
        kernel.capture,
        "kedge's programs cannot be loaded on Linux {name}"
    );
    Ok(kernel)
}

fn table() -> Result<Table> {
    let path = repository().join("vm-tests/kernels.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_valid_and_every_package_has_its_hash() {
        let kernels = choose(&[]).expect("the table");
        let packages = kernels.iter().flat_map(|kernel| &kernel.packages);
        for package in packages {
            assert_eq!(
                package.sha256.as_ref().map(String::len),
                Some(64),
                "{}",
                package.name
            );
        }
    }

    #[test]
    fn of_a_pair_one_kernel_updates_keys_in_place_and_the_other_does_not() {
        for pair in pairs().expect("the table") {
            let silent = |kernel: &Kernel| {
                kernel
                    .silent_canaries
                    .contains(&"kTLS: key update".to_owned())
            };
            let [a, b] = pair.each_ref().map(silent);
            assert_ne!(a, b);
        }
    }

    #[test]
    fn a_kernel_that_is_not_there_is_an_error_that_names_those_that_are() {
        let error = choose(&["2.4".to_owned()])
            .expect_err("no such kernel")
            .to_string();
        assert!(error.contains("6.1"), "{error}");
    }
}
