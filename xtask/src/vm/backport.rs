//! QEMU of a later Debian, unpacked beside this one's libraries; nothing is installed.

use super::archive::Suite;
use super::kernels::Package;
use crate::artifacts::target_folder;
use crate::shell::{command, output};
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

const FROM_BACKPORTS: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];
/// What it links with or loads and a small system may lack.
const FROM_STABLE: [&str; 12] = [
    "seabios",
    "libcapstone4",
    "libpmem1",
    "libfdt1",
    "librdmacm1",
    "libibverbs1",
    "libslirp0",
    "libvdeplug2",
    "libdaxctl1",
    "libndctl6",
    "libnl-3-200",
    "libnl-route-3-200",
];

/// Where it is, after it was fetched if need be.
///
/// # Errors
/// When the archive cannot be reached.
pub fn unpacked() -> Result<PathBuf> {
    let root = target_folder().join("vm/qemu");
    if root.exists() {
        return Ok(root);
    }
    println!("vm: fetching QEMU from bookworm-backports");
    let fresh = root.with_extension("new");
    fs::create_dir_all(&fresh)?;
    for (suite, names) in [
        ("bookworm-backports", &FROM_BACKPORTS[..]),
        ("bookworm", &FROM_STABLE),
    ] {
        let suite = Suite::open(suite)?;
        for name in names {
            let package = Package {
                name: (*name).to_owned(),
                sha256: None,
            };
            let path = suite.fetch(&package)?;
            output(command(["dpkg-deb", "-x"]).arg(path).arg(&fresh))?;
        }
    }
    fs::rename(&fresh, &root)?;
    Ok(root)
}
