//! The maps, as decisions see them.

use kedge_abi::{
    Address, CgroupEntry, Endpoint, Place, PortKey, ProbePort, Queued, Refusal, RefusalKey, Root,
    VerdictEntry, VerdictKey, limits, verdict,
};

/// The maps that decisions are made by.
pub trait Tables {
    fn root(&self) -> Option<&Root>;
    fn cgroup(&self, id: u64) -> Option<CgroupEntry>;
    /// Longest prefix match.
    fn verdict(&self, key: VerdictKey) -> Option<VerdictEntry>;
    fn port(&self, key: PortKey) -> Option<u32>;
    /// Whether the workload of this cgroup takes probes at this port.
    fn is_probe_port(&self, at: ProbePort) -> bool;
    fn place(&self, address: &Address) -> Option<Place>;
    fn refusal(&self, key: &RefusalKey) -> Option<Refusal>;
    /// Captured connections of this cgroup whose handshake is not finished yet. It may be below
    /// zero where a count was forgotten with its cgroup, which came back.
    fn pending(&self, cgroup_id: u64) -> i64;
    /// Established connections that wait for their worker to accept them.
    fn waiting(&self, queued: &Queued) -> i64;
    /// When this worker last beat, by the clock of `now` in [`crate::connect::Attempt`]; 0: never.
    fn beat(&self, worker: u32) -> u64;
    /// The first number below `count` that is it. Not a loop of the caller: the verifier would follow
    /// each of its steps by itself.
    fn first(&self, count: u32, is_it: impl Fn(u32) -> bool) -> Option<u32>;
}

/// The verdict for connections of `class` to `to`. What no prefix names is not kedge's: pass.
#[inline(always)]
pub fn verdict_for<T: Tables>(tables: &T, class: u32, to: &Endpoint) -> u32 {
    let Some(entry) = tables.verdict(VerdictKey::new(class, to.address)) else {
        return verdict::PASS;
    };
    if entry.port_set == 0 {
        return entry.default;
    }
    let port = PortKey {
        port_set: entry.port_set,
        port: to.port,
    };
    tables.port(port).unwrap_or(entry.default)
}

/// Whether `end` is one of the places where a worker takes captured connections.
#[inline(always)]
pub fn is_capture_end(root: &Root, end: &Endpoint) -> bool {
    is_capture_port(root, end.port)
        && (lies_in(&end.address, &root.capture_v4, &root.capture_v4_mask)
            || lies_in(&end.address, &root.capture_v6, &root.capture_v6_mask))
}

/// Ports are kept for as many workers as there can be, so that a daemon with more workers finds
/// them free.
#[inline(always)]
pub fn is_capture_port(root: &Root, port: u32) -> bool {
    port >= root.port_base && port - root.port_base < limits::WORKERS
}

/// Word by word: a comparison of whole structures may become a call that BPF has not got.
#[inline(always)]
fn lies_in(address: &Address, network: &Address, mask: &Address) -> bool {
    let differs =
        |word: usize| (address.words_be[word] ^ network.words_be[word]) & mask.words_be[word];
    // An empty mask is a range that nobody has configured.
    mask.words_be[0] != 0 && (differs(0) | differs(1) | differs(2) | differs(3)) == 0
}

/// See [`lies_in`] for why this is not `==`.
#[inline(always)]
pub fn is_same(a: &Address, b: &Address) -> bool {
    let differs = |word: usize| a.words_be[word] ^ b.words_be[word];
    (differs(0) | differs(1) | differs(2) | differs(3)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{World, end};
    use kedge_abi::class;

    #[test]
    fn the_longest_prefix_decides_and_its_ports_before_its_default() {
        let mut world = World::new();
        world.rule(class::REQUIRE, "10.0.0.0", 8, verdict::refuse(113));
        world.rule(class::REQUIRE, "10.1.2.3", 32, verdict::CAPTURE);
        world.port_rule(class::REQUIRE, "10.1.2.3", 32, 22, verdict::PASS);
        let of = |to| verdict_for(&world, class::REQUIRE, &end(to));
        assert_eq!(of("10.9.9.9:80"), verdict::refuse(113));
        assert_eq!(of("10.1.2.3:80"), verdict::CAPTURE);
        assert_eq!(of("10.1.2.3:22"), verdict::PASS);
        assert_eq!(of("192.0.2.1:80"), verdict::PASS);
    }

    #[test]
    fn one_class_does_not_see_the_verdicts_of_another() {
        let mut world = World::new();
        world.rule(class::REQUIRE, "10.0.0.0", 8, verdict::CAPTURE);
        let to = end("10.1.2.3:80");
        assert_eq!(verdict_for(&world, class::PERMISSIVE, &to), verdict::PASS);
    }

    #[test]
    fn a_capture_end_needs_both_the_range_and_the_port() {
        let root = World::new().root;
        for text in [
            "169.254.76.1:15001",
            "169.254.79.254:15032",
            "[fd6b:6564:6765::9]:15001",
        ] {
            assert!(is_capture_end(&root, &end(text)), "{text}");
        }
        for text in [
            "169.254.76.1:80",
            "169.254.80.1:15001",
            "10.0.0.1:15001",
            "[fd6b::1]:15001",
        ] {
            assert!(!is_capture_end(&root, &end(text)), "{text}");
        }
    }
}
