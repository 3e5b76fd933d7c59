//! A machine with a TPM: swtpm in a folder and on ports of its own, with EKs and certificates as a
//! maker would put them in. It ends with the test, however that ends. Where `KEDGE_TPM_DEVICE` names
//! a device and `KEDGE_TPM_MAKER` the folder with its maker's certificates, tests use that TPM in turns.

use kedge_attest::{Roots, TpmError};
use kedge_tpm::{Device, DeviceConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tss_esapi::Context;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, DigestValues};
use tss_esapi::tcti_ldr::TctiNameConf;

/// Says aloud that a test does not run here; where everything is asked for, that is a failure.
pub fn skip(reason: &str) {
    eprintln!("SKIP: {reason}");
    assert!(
        std::env::var_os("KEDGE_STRICT").is_none_or(|value| value != "1"),
        "skipped with KEDGE_STRICT=1: {reason}"
    );
}

macro_rules! machine_or_skip {
    () => {
        match $crate::machine::Machine::new() {
            Ok(machine) => machine,
            Err(reason) => return $crate::machine::skip(&reason),
        }
    };
}

pub struct Machine {
    tcti: String,
    maker: PathBuf,
    power: Power,
}

enum Power {
    Swtpm(Swtpm),
    /// This machine's own, for one test at a time.
    Own {
        _turn: MutexGuard<'static, ()>,
    },
}

struct Swtpm {
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Machine {
    /// # Errors
    /// When swtpm is not installed here.
    pub fn new() -> Result<Self, String> {
        static TURN: Mutex<()> = Mutex::new(());
        let named = ["KEDGE_TPM_DEVICE", "KEDGE_TPM_MAKER"].map(std::env::var);
        if let [Ok(device), Ok(maker)] = named {
            let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(Self {
                tcti: format!("device:{device}"),
                maker: maker.into(),
                power: Power::Own { _turn: turn },
            });
        }
        let swtpm = Swtpm::new()?;
        Ok(Self {
            tcti: format!("swtpm:host=127.0.0.1,port={}", swtpm.port),
            maker: swtpm.folder.path().join("maker"),
            power: Power::Swtpm(swtpm),
        })
    }

    /// Off and on again, as a reboot is to its TPM.
    pub fn reboot(&mut self) {
        let Power::Swtpm(swtpm) = &mut self.power else {
            panic!("this machine would have to be rebooted");
        };
        swtpm.power_off();
        swtpm.power_on();
    }

    pub fn config(&self) -> DeviceConfig {
        DeviceConfig::at(&self.tcti)
    }

    pub fn open(&self) -> Result<Device, TpmError> {
        Device::open(&self.config())
    }

    /// The TPM as anybody on the machine could use it, while no [`Device`] does.
    pub fn context(&self) -> Context {
        let tcti = TctiNameConf::from_str(&self.config().tcti).expect("an address");
        Context::new(tcti).expect("swtpm answers")
    }

    /// TPM2_PCR_Extend of the SHA-256 bank.
    pub fn extend(&self, index: u8, digest: [u8; 32]) {
        let handle = tss_esapi::handles::PcrHandle::try_from(u32::from(index)).expect("a PCR");
        let mut digests = DigestValues::new();
        let digest = Digest::try_from(&digest[..]).expect("32 bytes");
        digests.set(HashingAlgorithm::Sha256, digest);
        self.context()
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.pcr_extend(handle, digests)
            })
            .expect("extends");
    }

    /// The root of this TPM's maker.
    pub fn maker(&self) -> Roots {
        Roots::new([&self.certificate("swtpm-localca-rootca-cert.pem")]).expect("a root")
    }

    /// The maker's certificate between root and EK.
    pub fn intermediate(&self) -> CertificateDer<'static> {
        self.certificate("issuercert.pem")
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.maker.join(name)).expect("a certificate")
    }
}

impl Swtpm {
    fn new() -> Result<Self, String> {
        for program in ["swtpm", "swtpm_setup", "setpriv"] {
            let found = Command::new(program).arg("--version").output();
            found.map_err(|_| format!("no {program} here: `cargo xtask setup` installs it"))?;
        }
        let folder = tempfile::tempdir().expect("a folder");
        manufacture(folder.path());
        let mut swtpm = Self {
            folder,
            port: free_ports(),
            process: None,
        };
        swtpm.power_on();
        Ok(swtpm)
    }

    fn power_on(&mut self) {
        let state = self.folder.path().join("state");
        let tcp = |port| format!("type=tcp,port={port},bindaddr=127.0.0.1");
        // Should this process be killed, its TPM ends with it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "swtpm"])
            .args(["socket", "--tpm2", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .args(["--server", &tcp(self.port), "--ctrl", &tcp(self.port + 1)])
            .args(["--flags", "not-need-init,startup-clear"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm starts");
        self.process = Some(child);
        // The control port is asked: the other takes one connection, which is the test's.
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port + 1)).is_err() {
            assert!(Instant::now() < patience, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn power_off(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// EKs, their certificates, and a maker of its own who signs them.
fn manufacture(folder: &Path) {
    let (maker, state) = (folder.join("maker"), folder.join("state"));
    for dir in [&maker, &state] {
        fs::create_dir(dir).expect("a folder");
    }
    let (setup, ca, options) = (
        folder.join("setup.conf"),
        folder.join("ca.conf"),
        folder.join("ca.options"),
    );
    let maker = maker.display();
    let texts = [
        (
            &setup,
            format!(
                "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {}\n\
                 create_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
                ca.display(),
                options.display()
            ),
        ),
        (
            &ca,
            format!(
                "statedir = {maker}\nsigningkey = {maker}/signkey.pem\n\
                 issuercert = {maker}/issuercert.pem\ncertserial = {maker}/certserial\n"
            ),
        ),
        (
            &options,
            "--platform-manufacturer kedge\n--platform-version 1\n--platform-model test\n".into(),
        ),
    ];
    for (path, text) in texts {
        fs::write(path, text).expect("written");
    }
    let output = Command::new("swtpm_setup")
        .args([
            "--tpm2",
            "--createek",
            "--create-ek-cert",
            "--lock-nvram",
            "--overwrite",
        ])
        .args(["--tpmstate", &format!("dir://{}", state.display())])
        .arg("--config")
        .arg(&setup)
        .output()
        .expect("swtpm_setup runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "swtpm_setup: {said}");
}

/// Two ports in a row that nobody has: libtss2 looks for the control port behind the other.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + u16::try_from(std::process::id() % 400).expect("below 400") * 20;
    for _ in 0..1_000 {
        let port = base + NEXT.fetch_add(2, Ordering::Relaxed) % 8_000;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 1) {
            return port;
        }
    }
    panic!("no two free ports in a row");
}
