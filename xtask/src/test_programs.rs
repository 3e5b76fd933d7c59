//! The test programs of the workspace.

use crate::artifacts::repository;
use crate::shell::{command, shown};
use anyhow::{Context, Result, ensure};
use cargo_metadata::{Artifact, Message, MetadataCommand, Package};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Where cargo built the tests of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestProgram {
    pub package: String,
    /// A library or program has the name of its package or its own, a file of `tests/` its own.
    pub target: String,
    pub path: PathBuf,
    /// Where cargo would start it: its package's.
    pub folder: PathBuf,
}

impl TestProgram {
    /// Its package and its own: two packages have a test called `guard`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.package, self.target)
    }
}

/// Builds all of them, in one call: for another selection of packages cargo would choose other
/// features of what these share, and compile that once more.
///
/// # Errors
/// When something does not compile.
pub fn build() -> Result<Vec<TestProgram>> {
    let words = "cargo test --workspace --no-run --locked --message-format=json-render-diagnostics";
    let mut cargo = command(words.split(' '));
    cargo.current_dir(repository()).stdout(Stdio::piped());
    let mut child = cargo.spawn().context("start cargo")?;
    let told = child.stdout.take().context("the pipe from cargo")?;
    let packages = packages_of(&repository().join("Cargo.toml"))?;
    let mut programs = Vec::new();
    for message in Message::parse_stream(BufReader::new(told)) {
        if let Message::CompilerArtifact(artifact) = message.context("read what cargo says")? {
            programs.extend(program(artifact, &packages)?);
        }
    }
    let status = child.wait().context("wait for cargo")?;
    ensure!(status.success(), "{}: {status}", shown(&cargo));
    programs.sort_by_key(TestProgram::name);
    Ok(programs)
}

/// The packages of a workspace or of a package apart, without what they depend on.
///
/// # Errors
/// When cargo cannot read its manifest.
pub fn packages_of(manifest: &Path) -> Result<Vec<Package>> {
    let mut command = MetadataCommand::new();
    let command = command.manifest_path(manifest).no_deps();
    let told = command.exec();
    let told = told.with_context(|| format!("cargo metadata of {}", manifest.display()))?;
    Ok(told.packages)
}

/// Of a program that is no test: none.
fn program(artifact: Artifact, packages: &[Package]) -> Result<Option<TestProgram>> {
    let (Some(path), true) = (artifact.executable, artifact.profile.test) else {
        return Ok(None);
    };
    let mut packages = packages.iter();
    let package = packages.find(|package| package.id == artifact.package_id);
    let package = package.with_context(|| format!("{path} is of no package"))?;
    let folder = package.manifest_path.parent();
    Ok(Some(TestProgram {
        package: package.name.to_string(),
        target: artifact.target.name,
        path: path.into(),
        folder: folder.context("a manifest is in a folder")?.into(),
    }))
}
