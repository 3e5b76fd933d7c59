//! The BPF object: which compiler builds it, with which linker, and how.
//!
//! The programs need `core` compiled for BPF, so the compiler must have its library's source
//! beside it, and bpf-linker must read the bitcode of exactly that compiler's LLVM. In order:
//! `KEDGE_BPF_RUSTC`, a rustup nightly with rust-src, Debian's rustc-web with rust-web-src.

use crate::artifacts::target_folder;
use crate::setup::Step;
use crate::shell::{command, find_program, output, pass_through};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

const OVERRIDE: &str = "KEDGE_BPF_RUSTC";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// Its source is where Debian's own compiler looks for it.
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];
/// Versions of bpf-linker: against the distribution's LLVM, and with rustup's own.
const LINKER: &str = "bpf-linker@0.13.0";
const LINKER_WITH_RUSTUP_LLVM: &str = "bpf-linker@0.10.4";

/// A compiler that can build the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    pub rustc: PathBuf,
    pub llvm_major: u32,
}

/// Chooses the compiler.
///
/// # Errors
/// When there is none, with what to install; or when the override cannot do it.
pub fn toolchain() -> Result<Toolchain> {
    if let Some(rustc) = std::env::var_os(OVERRIDE) {
        let rustc = PathBuf::from(rustc);
        if !has_library_source(&rustc) {
            bail!(
                "{OVERRIDE}={}: no library source in its sysroot",
                rustc.display()
            );
        }
        return of_rustc(rustc);
    }
    let found = [rustup_nightly(), Some(DEBIAN_RUSTC.into())]
        .into_iter()
        .flatten()
        .find(|rustc| has_library_source(rustc));
    match found {
        Some(rustc) => of_rustc(rustc),
        None => bail!(
            "no compiler for BPF: `cargo xtask setup` installs Debian's {}; elsewhere run \
             `rustup toolchain install nightly -c rust-src`, or name one in {OVERRIDE}",
            DEBIAN_PACKAGES.join(" and ")
        ),
    }
}

fn rustup_nightly() -> Option<PathBuf> {
    let which = ["rustup", "which", "--toolchain", "nightly", "rustc"];
    let path = output(&mut command(which)).ok()?;
    Some(PathBuf::from(path.trim()))
}

fn has_library_source(rustc: &Path) -> bool {
    let mut print = command([rustc]);
    output(print.args(["--print", "sysroot"])).is_ok_and(|sysroot| {
        let sysroot = Path::new(sysroot.trim());
        sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
    })
}

fn of_rustc(rustc: PathBuf) -> Result<Toolchain> {
    let version = output(command([&rustc]).arg("-vV"))?;
    let llvm_major = llvm_major(&version)
        .with_context(|| format!("{} -vV: no LLVM version in it", rustc.display()))?;
    Ok(Toolchain { rustc, llvm_major })
}

/// The number in `LLVM version: 22.1.8`.
fn llvm_major(version: &str) -> Option<u32> {
    let line = version
        .lines()
        .find_map(|l| l.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.trim().parse().ok()
}

impl Toolchain {
    /// Where the distribution has this LLVM, if it is installed.
    fn llvm_prefix(&self) -> Option<PathBuf> {
        let prefix = PathBuf::from(format!("/usr/lib/llvm-{}", self.llvm_major));
        prefix.join("bin/llvm-config").exists().then_some(prefix)
    }

    fn is_debians(&self) -> bool {
        self.rustc == Path::new(DEBIAN_RUSTC)
    }

    fn linker_feature(&self) -> String {
        format!("llvm-{}", self.llvm_major)
    }
}

/// What apt-get has to install before the programs can be built; nothing where nothing is missing.
/// The LLVM is known only once the compiler is there, so ask again after installing it.
#[must_use]
pub fn debian_packages_needed() -> Vec<String> {
    match toolchain() {
        Err(_) => DEBIAN_PACKAGES.map(str::to_owned).to_vec(),
        Ok(toolchain) if toolchain.is_debians() && toolchain.llvm_prefix().is_none() => {
            vec![format!("llvm-{}-dev", toolchain.llvm_major)]
        }
        Ok(_) => Vec::new(),
    }
}

/// What setup has to do for the programs.
#[must_use]
pub fn missing_steps() -> Vec<Step> {
    let toolchain = toolchain().ok();
    let mut steps = Vec::new();
    if toolchain.is_none() {
        steps.push(Step {
            what: format!(
                "install the BPF compiler: {} and its LLVM (about 250 MB)",
                DEBIAN_PACKAGES.join(" ")
            ),
            run: install_packages,
        });
    }
    if !toolchain.is_some_and(|toolchain| is_linker_for(&toolchain)) {
        steps.push(Step {
            what: format!(
                "build bpf-linker into {} (a minute of CPU)",
                linker_root().display()
            ),
            run: install_linker,
        });
    }
    steps
}

/// The compiler first, and then the LLVM that it asks for.
fn install_packages() -> Result<()> {
    while let packages @ [_, ..] = debian_packages_needed().as_slice() {
        if find_program("apt-get").is_none() {
            toolchain()?;
            bail!(
                "install the LLVM of the chosen rustc: {}",
                packages.join(" ")
            );
        }
        crate::setup::apt_install(packages)?;
        if debian_packages_needed() == packages {
            bail!("{} did not bring what was missing", packages.join(" "));
        }
    }
    Ok(())
}

fn install_linker() -> Result<()> {
    install_packages()?;
    ensure_linker(&toolchain()?).map(drop)
}

fn linker_root() -> PathBuf {
    target_folder().join("bpf-toolchain")
}

/// Whether the linker that is there reads this compiler's bitcode; cargo keeps the features that
/// it was built with.
fn is_linker_for(toolchain: &Toolchain) -> bool {
    let root = linker_root();
    let built = fs::read_to_string(root.join(".crates2.json")).unwrap_or_default();
    let wanted = match toolchain.llvm_prefix() {
        Some(_) => format!("\"{}\"", toolchain.linker_feature()),
        None => LINKER_WITH_RUSTUP_LLVM.replace('@', " "),
    };
    root.join("bin/bpf-linker").exists() && built.contains(&wanted)
}

/// The linker for this compiler, built if it is not there.
///
/// # Errors
/// When it cannot be built.
pub fn ensure_linker(toolchain: &Toolchain) -> Result<PathBuf> {
    let root = linker_root();
    if !is_linker_for(toolchain) {
        // Unoptimised, in half of the time: what links is LLVM, which is optimised already.
        let words = [
            "cargo", "install", "--locked", "--force", "--debug", "--root",
        ];
        let mut cargo = command(words);
        cargo.arg(&root).env("CARGO_PROFILE_DEV_DEBUG", "0");
        match toolchain.llvm_prefix() {
            Some(prefix) => cargo
                .args([LINKER, "--no-default-features", "--features"])
                .arg(toolchain.linker_feature())
                .env("LLVM_PREFIX", prefix),
            None => cargo.arg(LINKER_WITH_RUSTUP_LLVM),
        };
        pass_through(&mut cargo)?;
    }
    Ok(root.join("bin/bpf-linker"))
}

/// Where [`build`] puts the object file.
#[must_use]
pub fn object() -> PathBuf {
    target_folder().join("bpf/kedge.bpf.o")
}

/// Builds the programs of the repository at `root`.
///
/// # Errors
/// When there is no compiler or linker for them, or they do not compile.
pub fn build(root: &Path) -> Result<PathBuf> {
    build_with(root, None, "kedge", &object())
}

/// Builds them for the test build of the next ABI.
///
/// # Errors
/// As [`build`].
pub fn build_next(root: &Path) -> Result<PathBuf> {
    let object = object().with_file_name("kedge-next.bpf.o");
    build_with(root, Some("abi-next"), "kedge", &object)
}

/// Builds the stand-in for another project's socket load balancer.
///
/// # Errors
/// As [`build`].
pub fn build_balancer(root: &Path) -> Result<PathBuf> {
    let object = object().with_file_name("balancer.bpf.o");
    build_with(root, Some("balancer"), "balancer", &object)
}

fn build_with(root: &Path, feature: Option<&str>, program: &str, object: &Path) -> Result<PathBuf> {
    let toolchain = toolchain()?;
    let linker = ensure_linker(&toolchain)?;
    let target = format!(
        "bpf{}-unknown-none",
        if cfg!(target_endian = "big") {
            "eb"
        } else {
            "el"
        }
    );
    let folder = target_folder().join("bpf/build");
    let mut cargo = command([
        "cargo",
        "build",
        "--release",
        "--locked",
        "-Zbuild-std=core",
        "--bin",
        program,
    ]);
    cargo
        .args(["--target", &target, "--target-dir"])
        .arg(&folder)
        .args(feature.iter().flat_map(|feature| ["--features", feature]))
        .current_dir(root.join("ebpf/programs"))
        .env("PATH", path_with(&linker)?)
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags())
        // Debian's compiler is a stable one; building `core` is an unstable option.
        .env("RUSTC_BOOTSTRAP", "1");
    for foreign in [
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_TARGET_DIR",
    ] {
        cargo.env_remove(foreign);
    }
    pass_through(&mut cargo)?;
    replace(&folder.join(target).join("release").join(program), object)?;
    Ok(object.to_owned())
}

fn flags() -> String {
    let arch = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    // Else LLVM calls a function that clears memory byte by byte, and the verifier follows each of its turns.
    let clearing = "-Clink-arg=--disable-expand-memcpy-in-order";
    [&arch, "-Cdebuginfo=2", "-Clink-arg=--btf", clearing].join("\x1f")
}

fn path_with(linker: &Path) -> Result<std::ffi::OsString> {
    let folder = linker.parent().map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = folder.into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(all).context("put bpf-linker on the path")
}

/// In one step: a daemon that starts meanwhile reads the old object or the new one.
pub(crate) fn replace(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new).with_context(|| format!("copy {}", from.display()))?;
    fs::rename(&new, to).with_context(|| format!("write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_major_is_read_from_the_compilers_own_words() {
        let version = "rustc 1.96.0 (ac68faa20 2026-05-25)\nhost: x\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }

    #[test]
    fn a_compiler_that_is_not_there_has_no_library_source() {
        assert!(!has_library_source(Path::new("/nonexistent/rustc")));
    }
}
