//! Packages of any Debian suite, whatever this machine runs: apt with folders of its own, so that
//! its signature checks and mirrors apply and the machine's own package lists stay as they are.

use super::kernels::{Kernel, Package};
use crate::artifacts::target_folder;
use crate::shell::{command, find_program, output};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// apt's view of one suite.
pub struct Suite {
    name: String,
    folder: PathBuf,
}

impl Suite {
    /// # Errors
    /// When there is no apt here, or a folder cannot be made.
    pub fn open(name: &str) -> Result<Self> {
        ensure!(
            find_program("apt-get").is_some(),
            "no apt-get: the kernels are Debian's packages; run this on Debian or Ubuntu"
        );
        let folder = target_folder().join("vm/apt").join(name);
        for part in [
            "lists/partial",
            "cache/archives/partial",
            "etc/preferences.d",
            "state",
        ] {
            fs::create_dir_all(folder.join(part))?;
        }
        let url = match name.ends_with("-security") {
            true => "http://security.debian.org/debian-security",
            false => "http://deb.debian.org/debian",
        };
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        // A suite at the end of its life keeps its last signature.
        let source = format!("deb [signed-by={keys} check-valid-until=no] {url} {name} main\n");
        fs::write(folder.join("etc/sources.list"), source)?;
        fs::write(folder.join("state/status"), "")?;
        Ok(Self {
            name: name.to_owned(),
            folder,
        })
    }

    fn apt(&self, program: &str, words: &[&str]) -> Result<String> {
        let folder = self.folder.display();
        let settings = [
            format!("Dir={folder}"),
            format!("Dir::State={folder}/state"),
            format!("Dir::State::lists={folder}/lists"),
            format!("Dir::State::status={folder}/state/status"),
            format!("Dir::Cache={folder}/cache"),
            format!("Dir::Etc={folder}/etc"),
            format!("Dir::Etc::sourcelist={folder}/etc/sources.list"),
            "Dir::Etc::Parts=/dev/null".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let mut apt = command([program]);
        for setting in &settings {
            apt.args(["-o", setting]);
        }
        let downloads = downloads();
        fs::create_dir_all(&downloads)?;
        output(apt.args(words).current_dir(downloads))
            .with_context(|| format!("suite {}", self.name))
    }

    /// Fetches a package, unless it was fetched before, and returns where it is.
    ///
    /// # Errors
    /// When the archive has none of that name, or one with another hash.
    pub fn fetch(&self, package: &Package) -> Result<PathBuf> {
        if let Some(path) = kept(package) {
            return Ok(path);
        }
        self.apt("apt-get", &["update", "-q"])?;
        let show = self.apt("apt-cache", &["show", &package.name])?;
        let hash = field(&show, "SHA256: ").context("the index has no hash")?;
        if let Some(wanted) = &package.sha256 {
            ensure!(
                wanted == hash,
                "{}: the archive's hash is {hash}, the table's {wanted}",
                package.name
            );
        }
        let file = Path::new(field(&show, "Filename: ").context("the index has no file name")?);
        let version = field(&show, "Version: ").context("the index has no version")?;
        self.apt("apt-get", &["download", "-q", &package.name])?;
        let architecture = file
            .file_stem()
            .and_then(|stem| stem.to_str()?.rsplit_once('_'));
        let architecture = architecture.map_or("amd64", |(_, architecture)| architecture);
        let fetched = format!(
            "{}_{}_{architecture}.deb",
            package.name,
            version.replace(':', "%3a")
        );
        let path = downloads().join(format!("{hash}.deb"));
        fs::rename(downloads().join(&fetched), &path).with_context(|| format!("keep {fetched}"))?;
        Ok(path)
    }

    /// The newest packages of a series, for a version that has left the archive.
    fn successor(&self, kernel: &Kernel) -> Result<Vec<Package>> {
        let pattern = format!("^{}.*cloud-amd64$", kernel.series.replace('.', "\\."));
        let found = self.apt("apt-cache", &["search", "--names-only", &pattern])?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        let newest = names
            .filter(|name| !name.contains("unsigned"))
            .max_by_key(|name| numbers(name));
        let Some(newest) = newest else {
            bail!(
                "suite {} has nothing of series {} any more",
                self.name,
                kernel.series
            );
        };
        let of = |name: String| Package { name, sha256: None };
        Ok(kernel
            .packages
            .iter()
            .map(|package| match package.name.starts_with("linux-modules-") {
                true => of(newest.replacen("binary", "modules", 1)),
                false => of(newest.to_owned()),
            })
            .collect())
    }
}

/// All packages of a kernel. One that has left the archive is replaced by its successor, aloud.
///
/// # Errors
/// When neither is to be had.
pub fn fetch_kernel(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let suite = Suite::open(&kernel.suite)?;
    let fetch = |packages: &[Package]| {
        packages
            .iter()
            .map(|p| suite.fetch(p))
            .collect::<Result<Vec<_>>>()
    };
    let named = fetch(&kernel.packages);
    let Err(error) = named else { return named };
    let successor = suite
        .successor(kernel)
        .with_context(|| format!("{error:#}"))?;
    println!("WARNING: kernel {}: {error:#}", kernel.name);
    println!(
        "WARNING: kernel {}: {} takes its place",
        kernel.name, successor[0].name
    );
    fetch(&successor)
}

/// Named by hash, so that a version that has vanished from the archive is still there.
fn downloads() -> PathBuf {
    target_folder().join("vm/packages")
}

fn kept(package: &Package) -> Option<PathBuf> {
    let path = downloads().join(format!("{}.deb", package.sha256.as_ref()?));
    path.exists().then_some(path)
}

fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| line.strip_prefix(name))
}

/// The numbers in a name, by which 6.1.0-9 comes before 6.1.0-10.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("linux-image-6.1.0-9-cloud") < numbers("linux-image-6.1.0-10-cloud"));
        assert!(numbers("linux-image-6.12.99+deb12") < numbers("linux-image-6.12.117+deb12"));
    }
}
