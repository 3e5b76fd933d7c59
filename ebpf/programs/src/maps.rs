//! The maps, by the names and capacities of the ABI, and as kedge-logic sees them.

use crate::repeat;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf};
use kedge_abi::{
    Address, CgroupEntry, Claim, Client, Counter, Original, Place, PortKey, ProbePort, Queued,
    Refusal, RefusalKey, Root, Slot, Tuple, VerdictEntry, VerdictKey, limits,
};
use kedge_logic::Tables;

#[map]
static ROOT: Array<Root> = Array::with_max_entries(1, 0);
#[map]
static BEATS: Array<u64> = Array::with_max_entries(limits::WORKERS, 0);
#[map]
static CGROUPS: HashMap<u64, CgroupEntry> =
    HashMap::with_max_entries(limits::CGROUPS, BPF_F_NO_PREALLOC);
#[map]
static PROBE_PORTS: HashMap<ProbePort, u32> =
    HashMap::with_max_entries(limits::PROBE_PORTS, BPF_F_NO_PREALLOC);
#[map]
static VERDICTS: LpmTrie<VerdictKey, VerdictEntry> =
    LpmTrie::with_max_entries(limits::VERDICTS, BPF_F_NO_PREALLOC);
#[map]
static PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(limits::PORTS, BPF_F_NO_PREALLOC);
#[map]
static PLACES: HashMap<Address, Place> =
    HashMap::with_max_entries(limits::PLACES, BPF_F_NO_PREALLOC);
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(limits::SLOTS, 0);
#[map]
pub static REFUSALS: HashMap<RefusalKey, Refusal> =
    HashMap::with_max_entries(limits::REFUSALS, BPF_F_NO_PREALLOC);
#[map]
pub static PENDING: HashMap<u64, i64> =
    HashMap::with_max_entries(limits::CGROUPS, BPF_F_NO_PREALLOC);
#[map]
pub static CLAIMS: HashMap<Tuple, Claim> =
    HashMap::with_max_entries(limits::CLAIMS, BPF_F_NO_PREALLOC);
#[map]
pub static DELIVERIES: HashMap<u64, Client> =
    HashMap::with_max_entries(limits::DELIVERIES, BPF_F_NO_PREALLOC);
#[map]
pub static ADMITTED: HashMap<Tuple, Client> =
    HashMap::with_max_entries(limits::ADMITTED, BPF_F_NO_PREALLOC);
#[map]
pub static QUEUES: HashMap<Queued, i64> =
    HashMap::with_max_entries(limits::QUEUES, BPF_F_NO_PREALLOC);
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(limits::EVENTS_BYTES, 0);
#[btf_map]
pub static ACCEPTED: SkStorage<Claim> = SkStorage::new();
#[btf_map]
pub static ORIGINAL: SkStorage<Original> = SkStorage::new();
#[btf_map]
pub static CLIENT: SkStorage<Client> = SkStorage::new();
#[btf_map]
pub static QUEUED: SkStorage<Queued> = SkStorage::new();

/// The maps that decisions are made by, for kedge-logic.
pub struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn root(&self) -> Option<&Root> {
        ROOT.get(0)
    }

    #[inline(always)]
    fn cgroup(&self, id: u64) -> Option<CgroupEntry> {
        // SAFETY: the value is copied at once; userspace replaces entries whole, and a read of
        // one that is being replaced gives one of two valid entries.
        unsafe { CGROUPS.get(&id) }.copied()
    }

    #[inline(always)]
    fn is_probe_port(&self, at: ProbePort) -> bool {
        PROBE_PORTS.get_ptr(&at).is_some()
    }

    #[inline(always)]
    fn verdict(&self, key: VerdictKey) -> Option<VerdictEntry> {
        VERDICTS.get(Key::new(VerdictKey::BITS, key)).copied()
    }

    #[inline(always)]
    fn port(&self, key: PortKey) -> Option<u32> {
        // SAFETY: as in `cgroup`.
        unsafe { PORTS.get(&key) }.copied()
    }

    #[inline(always)]
    fn place(&self, address: &Address) -> Option<Place> {
        // SAFETY: as in `cgroup`.
        unsafe { PLACES.get(address) }.copied()
    }

    #[inline(always)]
    fn refusal(&self, key: &RefusalKey) -> Option<Refusal> {
        // SAFETY: as in `cgroup`; the one field that a program writes is not decided by.
        unsafe { REFUSALS.get(key) }.copied()
    }

    #[inline(always)]
    fn pending(&self, cgroup_id: u64) -> i64 {
        // SAFETY: one word is read at once.
        unsafe { PENDING.get(&cgroup_id) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn waiting(&self, queued: &Queued) -> i64 {
        // SAFETY: one word is read at once.
        unsafe { QUEUES.get(queued) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn beat(&self, worker: u32) -> u64 {
        BEATS.get(worker).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn first(&self, count: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        repeat::first(count, is_it)
    }
}
