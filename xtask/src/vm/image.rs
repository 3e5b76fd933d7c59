//! What a machine boots: a kernel, and one archive with init, modules, tests and the few programs
//! that tests run. Programs come from this machine, each with the libraries that it names.

use super::archive::fetch_kernel;
use super::kernels::Kernel;
use crate::artifacts::target_folder;
use crate::shell::{command, find_program, output};
use anyhow::{Context, Result};
use cpio::newc;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What init and the tests run beside themselves.
const PROGRAMS: [&str; 16] = [
    "sh", "ip", "nsenter", "setsid", "hostname", "cat", "ls", "mount", "dmesg", "sleep", "ss",
    "mkdir", "rm", "bpftool", "tcpdump", "timeout",
];
/// What nodes with TPMs of their own run, and whoever delivers and changes these.
const TPM_PROGRAMS: [&str; 7] = [
    "swtpm",
    "swtpm_setup",
    "swtpm_ioctl",
    "swtpm_localca",
    "swtpm_cert",
    "certtool",
    "tpm2_pcrextend",
];
/// What is no part of Debian's cloud kernels themselves; what they depend on is found out. Not all
/// kernels have all of the ciphers' modules: later ones build more in.
const MODULES: [&str; 20] = [
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    "veth",
    "tls",
    "aesni_intel",
    "gcm",
    "ctr",
    "ghash_generic",
    "ghash_clmulni_intel",
    "chacha20poly1305",
    "chacha",
    "chacha_generic",
    "chacha_x86_64",
    "poly1305_generic",
    "poly1305_x86_64",
    "dummy",
    "tcp_diag",
    "tpm_tis",
    "tpm_crb",
];

/// A kernel with its modules, unpacked.
pub struct Unpacked {
    pub kernel: PathBuf,
    /// As uname(1) says it.
    pub release: String,
    root: PathBuf,
}

/// Fetches and unpacks a kernel, unless that was done before.
///
/// # Errors
/// When it is not to be had, or a package is not what a kernel package is.
pub fn unpack(kernel: &Kernel) -> Result<Unpacked> {
    let packages = fetch_kernel(kernel)?;
    let key = packages[0].file_stem().context("a package has a name")?;
    let root = target_folder().join("vm/kernels").join(key);
    if !root.exists() {
        let fresh = root.with_extension("new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh)?;
        }
        fs::create_dir_all(&fresh)?;
        for package in &packages {
            output(command(["dpkg-deb", "-x"]).arg(package).arg(&fresh))?;
        }
        fs::rename(&fresh, &root)?;
    }
    let release = release(&root)?;
    let modules = modules_folder(&root, &release);
    if !modules.join("modules.dep").exists() {
        let base = if modules.starts_with(root.join("usr")) {
            root.join("usr")
        } else {
            root.clone()
        };
        output(command(["depmod", "-b"]).arg(base).arg(&release))?;
    }
    let in_boot = root.join(format!("boot/vmlinuz-{release}"));
    let kernel = if in_boot.exists() {
        in_boot
    } else {
        modules.join("vmlinuz")
    };
    Ok(Unpacked {
        kernel,
        release,
        root,
    })
}

fn release(root: &Path) -> Result<String> {
    let folders = ["usr/lib/modules", "lib/modules"].map(|folder| root.join(folder));
    let mut releases = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten();
    let release = releases.next().context("the package has no modules")??;
    Ok(release.file_name().to_string_lossy().into_owned())
}

fn modules_folder(root: &Path, release: &str) -> PathBuf {
    let merged = root.join("usr/lib/modules").join(release);
    if merged.exists() {
        merged
    } else {
        root.join("lib/modules").join(release)
    }
}

/// Where things go in the machine, and what they are.
#[derive(Default)]
pub struct Image {
    files: BTreeMap<String, Content>,
}

enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Image {
    /// init, the modules of `unpacked`, and the usual programs.
    ///
    /// # Errors
    /// When one of them is missing on this machine.
    pub fn base(unpacked: &Unpacked, init: &Path) -> Result<Self> {
        let mut image = Self::default();
        image.add_program("init", init)?;
        image.add_programs(&PROGRAMS)?;
        // tcpdump looks for the user that it shall be.
        image.add_text("etc/passwd", "root:x:0:0:root:/:/bin/sh\n".to_owned());
        image.add_modules(unpacked)?;
        Ok(image)
    }

    /// What a machine with TPMs runs beside that.
    ///
    /// # Errors
    /// When one of them is missing on this machine.
    pub fn add_tpm_programs(&mut self) -> Result<()> {
        self.add_programs(&TPM_PROGRAMS)
    }

    fn add_programs(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            let path = find_program(name).with_context(|| format!("no {name} on this machine"))?;
            self.add_program(&format!("bin/{name}"), &path)?;
        }
        Ok(())
    }

    /// A program, with every library that it is linked with at the place where it looks for it.
    ///
    /// # Errors
    /// When a library is missing.
    pub fn add_program(&mut self, place: &str, program: &Path) -> Result<()> {
        self.add_file(place, program);
        let told = output(command(["ldd"]).arg(program)).unwrap_or_default();
        for word in told.split_whitespace().filter(|word| word.starts_with('/')) {
            self.add_file(word.trim_start_matches('/'), Path::new(word));
        }
        Ok(())
    }

    pub fn add_file(&mut self, place: &str, path: &Path) {
        self.files
            .insert(place.to_owned(), Content::File(path.to_owned()));
    }

    /// The files of a folder that has no folders in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn add_folder(&mut self, place: &str, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            self.add_file(&format!("{place}/{name}"), &entry.path());
        }
        Ok(())
    }

    pub fn add_text(&mut self, place: &str, text: String) {
        self.files
            .insert(place.to_owned(), Content::Bytes(text.into_bytes()));
    }

    /// Numbered in the order in which they must be loaded.
    fn add_modules(&mut self, unpacked: &Unpacked) -> Result<()> {
        let folder = modules_folder(&unpacked.root, &unpacked.release);
        let text = fs::read_to_string(folder.join("modules.dep")).context("read modules.dep")?;
        let dependencies = Dependencies::parse(&text);
        let mut order = Vec::new();
        for name in MODULES {
            dependencies.collect(name, &mut order);
        }
        let mut list = String::new();
        for path in order {
            let name = path.rsplit('/').next().unwrap_or(path);
            let plain = name.trim_end_matches(".xz");
            let bytes = match name.ends_with(".xz") {
                true => unxz(&folder.join(path))?,
                false => fs::read(folder.join(path))?,
            };
            self.files
                .insert(format!("modules/{plain}"), Content::Bytes(bytes));
            list += &format!("{plain}\n");
        }
        self.add_text("modules/list", list);
        Ok(())
    }

    /// Writes it as the kernel wants an initramfs: cpio, format newc.
    ///
    /// # Errors
    /// When a file cannot be read, or the archive not written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        let mut number = 1;
        let folders: std::collections::BTreeSet<_> =
            self.files.keys().flat_map(|file| parents(file)).collect();
        for folder in folders
            .iter()
            .map(String::as_str)
            .chain(["proc", "sys", "dev", "run", "tmp"])
        {
            let entry = newc::Builder::new(folder)
                .ino(number)
                .mode(0o040_755)
                .nlink(2);
            entry.write(&mut out, 0).finish()?;
            number += 1;
        }
        for (place, content) in &self.files {
            let (bytes, mode) = match content {
                Content::File(from) => read(from)?,
                Content::Bytes(bytes) => (bytes.clone(), 0o644),
            };
            let size = u32::try_from(bytes.len()).with_context(|| format!("{place}: too large"))?;
            let entry = newc::Builder::new(place).ino(number).mode(0o100_000 | mode);
            let mut writer = entry.write(&mut out, size);
            io::copy(&mut Cursor::new(bytes), &mut writer)?;
            writer.finish()?;
            number += 1;
        }
        newc::trailer(out)?;
        Ok(())
    }
}

fn read(from: &Path) -> Result<(Vec<u8>, u32)> {
    let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    Ok((bytes, fs::metadata(from)?.permissions().mode() & 0o777))
}

fn parents(file: &str) -> Vec<String> {
    let slashes = file.match_indices('/').map(|(at, _)| file[..at].to_owned());
    slashes.collect()
}

fn unxz(path: &Path) -> Result<Vec<u8>> {
    let done = command(["xz", "-dc"])
        .arg(path)
        .output()
        .context("start xz")?;
    anyhow::ensure!(
        done.status.success(),
        "xz -dc {}: {}",
        path.display(),
        done.status
    );
    Ok(done.stdout)
}

/// `modules.dep`: what each module needs, by path.
struct Dependencies<'a>(Vec<(&'a str, Vec<&'a str>)>);

impl<'a> Dependencies<'a> {
    fn parse(text: &'a str) -> Self {
        let line = |line: &'a str| {
            let (module, needs) = line.split_once(':')?;
            Some((module, needs.split_whitespace().collect()))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Appends the module's path behind everything that it needs. What is not there is built in,
    /// or this kernel does not have it.
    fn collect(&self, name: &str, order: &mut Vec<&'a str>) {
        let is_it = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or(path);
            file.split('.')
                .next()
                .is_some_and(|stem| stem.replace('-', "_") == name)
        };
        if let Some((path, needs)) = self.0.iter().find(|(path, _)| is_it(path)) {
            // depmod lists what comes last first.
            for needed in needs.iter().rev().chain([path]) {
                if !order.contains(needed) {
                    order.push(needed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_behind_what_it_needs_and_only_once() {
        let text =
            "kernel/a-x.ko.xz: kernel/b.ko kernel/c.ko\nkernel/b.ko: kernel/c.ko\nkernel/c.ko:\n";
        let dependencies = Dependencies::parse(text);
        let mut order = Vec::new();
        for name in ["a_x", "b", "built_in"] {
            dependencies.collect(name, &mut order);
        }
        assert_eq!(order, ["kernel/c.ko", "kernel/b.ko", "kernel/a-x.ko.xz"]);
    }

    #[test]
    fn every_folder_above_a_file_is_made_before_it() {
        assert_eq!(parents("a/b/c"), ["a", "a/b"]);
        assert!(parents("init").is_empty());
    }
}
