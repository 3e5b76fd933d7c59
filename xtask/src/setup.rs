//! `cargo xtask setup`: says what is missing, then installs it. Everything that the lab needs
//! comes from the distribution; what the BPF build needs goes below the target folder.

use crate::bpf;
use crate::shell::{command, find_program, pass_through};
use anyhow::{Result, bail};
use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::process::Command;

/// A program that the lab or the build runs, and the package that has it.
struct Need {
    program: &'static str,
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
}

const NEEDS: [Need; 24] = [
    need("cc", "build-essential", "gcc", "gcc"),
    need("git", "git", "git", "git"),
    need("ip", "iproute2", "iproute", "iproute2"),
    need("nsenter", "util-linux", "util-linux", "util-linux"),
    need("setpriv", "util-linux", "util-linux", "util-linux"),
    need("tcpdump", "tcpdump", "tcpdump", "tcpdump"),
    need("curl", "curl", "curl", "curl"),
    need("nginx", "nginx-light", "nginx", "nginx"),
    need("psql", "postgresql-client", "postgresql", "postgresql-libs"),
    need(POSTGRES, "postgresql", "postgresql-server", "postgresql"),
    need("redis-server", "redis-server", "redis", "redis"),
    need("redis-cli", "redis-tools", "redis", "redis"),
    need(
        "aiosmtpd",
        "python3-aiosmtpd",
        "python3-aiosmtpd",
        "python-aiosmtpd",
    ),
    need("nft", "nftables", "nftables", "nftables"),
    need("nc", "netcat-openbsd", "netcat", "openbsd-netcat"),
    need("haproxy", "haproxy", "haproxy", "haproxy"),
    need("bpftool", "bpftool", "bpftool", "bpf"),
    need("depmod", "kmod", "kmod", "kmod"),
    need("xz", "xz-utils", "xz", "xz"),
    need("swtpm", "swtpm", "swtpm", "swtpm"),
    need("swtpm_setup", "swtpm-tools", "swtpm-tools", "swtpm"),
    need("tpm2_pcrextend", "tpm2-tools", "tpm2-tools", "tpm2-tools"),
    need("pkg-config", "pkg-config", "pkgconf-pkg-config", "pkgconf"),
    need(TSS2, "libtss2-dev", "tpm2-tss-devel", "tpm2-tss"),
];
/// A library, which pkg-config knows: kedge-tpm is linked with it.
const TSS2: &str = "tss2-esys";
/// Debian keeps it off the path, in a folder of its version.
const POSTGRES: &str = "postgres";

const fn need(
    program: &'static str,
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
) -> Need {
    Need {
        program,
        debian,
        fedora,
        arch,
    }
}

impl Need {
    fn is_met(&self) -> bool {
        if self.program == POSTGRES && crate::lab::services::postgres_bin().is_some() {
            return true;
        }
        if self.program == TSS2 {
            return is_library(TSS2);
        }
        find_program(self.program).is_some()
    }
}

fn is_library(name: &str) -> bool {
    let asked = Command::new("pkg-config").args(["--exists", name]).status();
    asked.is_ok_and(|status| status.success())
}

/// One step of setup beside the distribution's packages.
pub struct Step {
    pub what: String,
    pub run: fn() -> Result<()>,
}

/// Prints the plan, asks unless told not to, and carries it out. With nothing missing it says so.
///
/// # Errors
/// When something cannot be installed, or the user declines.
pub fn setup(yes: bool) -> Result<()> {
    let missing = missing();
    let steps = bpf::missing_steps();
    if missing.is_empty() && steps.is_empty() {
        println!("setup: nothing is missing");
        return Ok(());
    }
    println!("setup will:");
    if !missing.is_empty() {
        println!(
            "  install from the distribution: {}",
            names(&missing).join(" ")
        );
        println!(
            "  (nginx, PostgreSQL and Redis may be started as services by their packages; the"
        );
        println!("  lab runs its own and needs none of these: `systemctl disable --now NAME`)");
    }
    for step in &steps {
        println!("  {}", step.what);
    }
    if !(yes || confirmed()?) {
        bail!("nothing was changed; `cargo xtask setup --yes` does not ask");
    }
    if !missing.is_empty() {
        install(&missing)?;
    }
    for step in steps {
        println!("▸ {}", step.what);
        (step.run)()?;
    }
    println!("setup: done");
    Ok(())
}

/// For verbs that need it all: installs what is missing without asking when nobody can answer.
///
/// # Errors
/// As [`setup`].
pub fn prepare() -> Result<()> {
    if missing().is_empty() && bpf::missing_steps().is_empty() {
        return Ok(());
    }
    setup(!std::io::stdin().is_terminal())
}

fn missing() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !need.is_met()).collect()
}

fn install(missing: &[&Need]) -> Result<()> {
    if find_program("apt-get").is_none() {
        print_table(missing);
        bail!("this is not Debian: install the packages above, then run it again");
    }
    apt_install(&names(missing))
}

/// Installs these packages of Debian.
///
/// # Errors
/// When apt-get does not succeed.
pub fn apt_install<S: AsRef<str>>(packages: &[S]) -> Result<()> {
    let apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300"];
    let as_root = |words: &[&str]| {
        let sudo = (!nix::unistd::geteuid().is_root()).then_some("sudo");
        let all = sudo.into_iter().chain(apt).chain(words.iter().copied());
        pass_through(command(all).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    as_root(&["update", "--quiet"])?;
    let mut words = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    words.extend(packages.iter().map(AsRef::as_ref));
    as_root(&words)
}

fn names(missing: &[&Need]) -> Vec<&'static str> {
    let mut names: Vec<_> = missing.iter().map(|need| need.debian).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What the same program is called elsewhere.
fn print_table(missing: &[&Need]) {
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = system
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    println!(
        "{}: kedge's setup knows Debian's package manager only",
        name.unwrap_or("unknown")
    );
    println!(
        "{:14} {:20} {:20} {:20}",
        "program", "Debian", "Fedora", "Arch"
    );
    for need in missing {
        println!(
            "{:14} {:20} {:20} {:20}",
            need.program, need.debian, need.fedora, need.arch
        );
    }
}

fn confirmed() -> Result<bool> {
    print!("Go on? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_once_however_many_programs_it_has() {
        let all: Vec<_> = NEEDS.iter().collect();
        let names = names(&all);
        assert_eq!(
            names.iter().filter(|name| **name == "util-linux").count(),
            1
        );
    }
}
