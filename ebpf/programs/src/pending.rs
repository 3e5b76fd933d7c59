//! How many claims each cgroup has in `CLAIMS`. Whoever adds or removes a claim counts it, once:
//! the map says which insertion and which removal it was.

use crate::maps::PENDING;
use crate::tally;

/// Makes sure, before a connection is captured, that its claim can be counted.
#[inline(always)]
pub fn open(cgroup_id: u64) -> bool {
    tally::open(&PENDING, &cgroup_id)
}

/// A claim was inserted.
#[inline(always)]
pub fn begin(cgroup_id: u64) {
    tally::add(&PENDING, &cgroup_id, 1);
}

/// A claim was removed.
#[inline(always)]
pub fn end(cgroup_id: u64) {
    tally::add(&PENDING, &cgroup_id, -1);
}
