//! A machine's TPM: a swtpm on this machine, which QEMU finds at a socket. The guest sees the device
//! that a real one would show.

use super::image::Image;
use super::kernels::TpmInterface;
use crate::lab::tpm::{ISSUER, MAKER, STATE, manufacture};
use crate::shell::{command, output, wait_for};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// In the guest.
pub const DEVICE: &str = "/dev/tpmrm0";
pub const MAKER_IN_GUEST: &str = "/tpm-maker";

/// It ends with this value.
pub struct MachineTpm {
    interface: TpmInterface,
    folder: tempfile::TempDir,
    swtpm: Child,
}

impl MachineTpm {
    /// One that its maker has just delivered.
    ///
    /// # Errors
    /// When swtpm cannot make it, or does not start.
    pub fn power_on(interface: TpmInterface) -> Result<Self> {
        // A socket's path is at most 107 bytes long: not below the target folder.
        let folder = tempfile::tempdir().context("make a folder for a TPM")?;
        manufacture(folder.path())?;
        let socket = socket(folder.path());
        let swtpm = command([
            "setpriv",
            "--pdeathsig",
            "KILL",
            "swtpm",
            "socket",
            "--tpm2",
        ])
        .arg("--tpmstate")
        .arg(format!("dir={}", folder.path().join(STATE).display()))
        .arg("--ctrl")
        .arg(format!("type=unixio,path={}", socket.display()))
        .stdin(Stdio::null())
        .spawn()
        .context("start swtpm")?;
        let tpm = Self {
            interface,
            folder,
            swtpm,
        };
        wait_for("swtpm to listen", Duration::from_secs(20), || {
            Ok(socket.exists().then_some(()))
        })?;
        Ok(tpm)
    }

    /// Puts it into a machine.
    pub fn attach(&self, qemu: &mut Command) {
        let device = match self.interface {
            TpmInterface::TpmTis => "tpm-tis",
            TpmInterface::TpmCrb => "tpm-crb",
        };
        let socket = socket(self.folder.path());
        qemu.args([
            "-chardev",
            &format!("socket,id=tpm,path={}", socket.display()),
        ]);
        qemu.args(["-tpmdev", "emulator,id=tpm0,chardev=tpm"]);
        qemu.args(["-device", &format!("{device},tpmdev=tpm0")]);
    }

    /// Gives the machine what its tests need beside the TPM: the certificates of its maker, and what
    /// libtss2 opens by itself to speak to a device or to a swtpm.
    ///
    /// # Errors
    /// When libtss2's parts are not installed here.
    pub fn equip(&self, image: &mut Image) -> Result<()> {
        for name in [ISSUER, ROOT] {
            let place = format!("{}/{name}", MAKER_IN_GUEST.trim_start_matches('/'));
            image.add_file(&place, &self.folder.path().join(MAKER).join(name));
        }
        for name in ["tss2-tcti-device", "tss2-tcti-swtpm"] {
            let folder = output(command(["pkg-config", "--variable=libdir"]).arg(name))?;
            let library = format!("{}/lib{name}.so.0", folder.trim());
            let path = Path::new(&library);
            ensure!(path.exists(), "no {library} on this machine");
            image.add_program(library.trim_start_matches('/'), path)?;
        }
        Ok(())
    }
}

impl Drop for MachineTpm {
    fn drop(&mut self) {
        let _ = self.swtpm.kill();
        let _ = self.swtpm.wait();
    }
}

/// As swtpm_localca calls it.
const ROOT: &str = "swtpm-localca-rootca-cert.pem";

fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}
