//! What this kernel can do, found out by loading programs of one call each: the kernel's verifier
//! is the only one who knows, whatever its version says.

use crate::bpf;

/// One thing that kedge asks of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    pub name: &'static str,
    pub available: bool,
    /// What kedge needs it for, or what the kernel said instead.
    pub reason: String,
}

struct Probe {
    name: &'static str,
    program: u32,
    attach: u32,
    /// The helper that is called with the context as its argument; `None`: only return.
    helper: Option<u32>,
    purpose: &'static str,
}

const CGROUP_SKB: u32 = 8;
const CGROUP_SOCK: u32 = 9;
const SOCK_OPS: u32 = 13;
const SOCK_ADDR: u32 = 18;

const INGRESS: u32 = 0;
const SOCK_OPS_HOOK: u32 = 3;
const BIND4: u32 = 8;
const CONNECT4: u32 = 10;
const CONNECT6: u32 = 11;
const PEERNAME4: u32 = 29;
const PEERNAME6: u32 = 30;
const SOCK_RELEASE: u32 = 34;

const GET_SOCKET_COOKIE: u32 = 46;
const SKB_CGROUP_ID: u32 = 79;
const GET_CURRENT_CGROUP_ID: u32 = 80;
const GET_NETNS_COOKIE: u32 = 122;
const KTIME_GET_NS: u32 = 5;
const GET_RETVAL: u32 = 186;

const PROBES: &[Probe] = &[
    probe("connect4", SOCK_ADDR, CONNECT4, None, "redirect IPv4"),
    probe("connect6", SOCK_ADDR, CONNECT6, None, "redirect IPv6"),
    probe(
        "getpeername4",
        SOCK_ADDR,
        PEERNAME4,
        None,
        "true addresses, IPv4",
    ),
    probe(
        "getpeername6",
        SOCK_ADDR,
        PEERNAME6,
        None,
        "true addresses, IPv6",
    ),
    probe("bind4", SOCK_ADDR, BIND4, None, "keep kedged's ports"),
    probe("sock_ops", SOCK_OPS, SOCK_OPS_HOOK, None, "file tuples"),
    probe(
        "sock_release",
        CGROUP_SOCK,
        SOCK_RELEASE,
        None,
        "tell who cannot be captured",
    ),
    probe(
        "cgroup_skb",
        CGROUP_SKB,
        INGRESS,
        None,
        "guard mode require",
    ),
    probe(
        "connect4: current cgroup id",
        SOCK_ADDR,
        CONNECT4,
        Some(GET_CURRENT_CGROUP_ID),
        "tell workloads apart",
    ),
    probe(
        "connect4: socket cookie",
        SOCK_ADDR,
        CONNECT4,
        Some(GET_SOCKET_COOKIE),
        "name connections",
    ),
    probe(
        "connect4: netns cookie",
        SOCK_ADDR,
        CONNECT4,
        Some(GET_NETNS_COOKIE),
        "tell pods' networks apart",
    ),
    probe(
        "connect4: return value",
        SOCK_ADDR,
        CONNECT4,
        Some(GET_RETVAL),
        "refuse with an errno",
    ),
    probe(
        "connect4: monotonic clock",
        SOCK_ADDR,
        CONNECT4,
        Some(KTIME_GET_NS),
        "tell whether a worker lives",
    ),
    probe(
        "sock_ops: socket cookie",
        SOCK_OPS,
        SOCK_OPS_HOOK,
        Some(GET_SOCKET_COOKIE),
        "join connect and tuple",
    ),
    probe(
        "cgroup_skb: cgroup of a packet",
        CGROUP_SKB,
        INGRESS,
        Some(SKB_CGROUP_ID),
        "guard by workload",
    ),
];

const fn probe(
    name: &'static str,
    program: u32,
    attach: u32,
    helper: Option<u32>,
    purpose: &'static str,
) -> Probe {
    Probe {
        name,
        program,
        attach,
        helper,
        purpose,
    }
}

/// Loads each probe; attaches nothing and leaves nothing behind.
#[must_use]
pub fn probe_features() -> Vec<Feature> {
    PROBES.iter().map(Probe::run).collect()
}

impl Probe {
    fn run(&self) -> Feature {
        let loaded = bpf::load_program(self.program, self.attach, &instructions(self.helper));
        Feature {
            name: self.name,
            available: loaded.is_ok(),
            reason: match loaded {
                Ok(_) => self.purpose.to_owned(),
                Err(error) => format!("needed to {}: {error}", self.purpose),
            },
        }
    }
}

/// `call helper; r0 = 1; exit`, as the kernel's `struct bpf_insn`: opcode in the lowest byte,
/// registers in the second, the immediate in the upper half. The context stands in r1.
fn instructions(helper: Option<u32>) -> Vec<u64> {
    const CALL: u64 = 0x85;
    const RETURN_1: u64 = 0xb7 | 1 << 32;
    const EXIT: u64 = 0x95;
    let call = helper.map(|helper| CALL | u64::from(helper) << 32);
    call.into_iter().chain([RETURN_1, EXIT]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_probes_are_unique() {
        let mut names: Vec<_> = PROBES.iter().map(|probe| probe.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PROBES.len());
    }

    #[test]
    fn a_probe_is_its_call_and_a_verdict_of_one() {
        assert_eq!(
            instructions(Some(80)),
            [0x50_0000_0085, 0x1_0000_00b7, 0x95]
        );
        assert_eq!(instructions(None).len(), 2);
    }
}
