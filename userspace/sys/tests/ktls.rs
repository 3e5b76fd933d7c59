//! Kernel records on the kernel that is there. In a virtual machine `KEDGE_SILENT_CANARIES` names
//! a file with what must not work on that kernel (from vm-tests/kernels.toml); elsewhere the kernel
//! itself says whether it has TLS at all.

use kedge_sys::canary;
use std::fs;

#[test]
fn canaries_sing_as_is_known_of_this_kernel() {
    let silent: Vec<_> = canary::sing()
        .into_iter()
        .filter(|canary| !canary.works)
        .collect();
    println!("{silent:#?}");
    let names: Vec<_> = silent.iter().map(|canary| canary.name).collect();
    match std::env::var("KEDGE_SILENT_CANARIES") {
        Ok(path) => {
            let expected = fs::read_to_string(&path).expect("the file that is named");
            assert_eq!(names, expected.lines().collect::<Vec<_>>());
        }
        Err(_) => assert_eq!(names.contains(&"kTLS"), !kernel_has_tls()),
    }
}

#[test]
fn a_canary_that_is_silent_says_what_follows() {
    for canary in canary::sing().iter().filter(|canary| !canary.works) {
        let reason = &canary.reason;
        assert!(
            reason.starts_with("needed to ") && reason.contains("; "),
            "{reason}"
        );
    }
}

fn kernel_has_tls() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp")
        .is_ok_and(|names| names.split_whitespace().any(|name| name == "tls"))
}
