//! How one set of prefixes takes the place of another while connections are decided by them.
//!
//! An address is decided by the longest prefix round it. In any other order than this one it may
//! meanwhile be decided by a prefix that was or will be none of its own: by a `pass` for everything
//! that was written before the `refuse` within it.

use kedge_abi::LpmKey;
use std::cmp::Reverse;

/// What is to be written, then what is to be deleted, each in its order. After every step each
/// address is decided as it was before the first or as it will be after the last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exchange<V> {
    pub(crate) writes: Vec<(LpmKey, V)>,
    pub(crate) deletes: Vec<LpmKey>,
}

impl<V> Exchange<V> {
    /// The longest prefix is written first, and deleted last.
    pub(crate) fn in_order(mut writes: Vec<(LpmKey, V)>, mut deletes: Vec<LpmKey>) -> Self {
        writes.sort_by_key(|(key, _)| Reverse(key.prefix_bits));
        deletes.sort_by_key(|key| key.prefix_bits);
        Self { writes, deletes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdicts::lpm_key;
    use ipnet::{IpNet, Ipv4Net};
    use kedge_abi::class;
    use proptest::collection::hash_map;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::{IpAddr, Ipv4Addr};

    const ADDRESSES: u32 = 16;

    type Prefixes = HashMap<IpNet, u8>;

    /// What a lookup answers, as the kernel does it.
    fn longest(table: &HashMap<LpmKey, u8>, address: IpAddr) -> Option<u8> {
        let round = (0..=32).rev().map(|bits| {
            let net = IpNet::new(address, bits).expect("at most 32");
            lpm_key(class::REQUIRE, &net.trunc())
        });
        round.into_iter().find_map(|key| table.get(&key).copied())
    }

    fn table(prefixes: &Prefixes) -> HashMap<LpmKey, u8> {
        let keyed = prefixes
            .iter()
            .map(|(net, value)| (lpm_key(class::REQUIRE, net), *value));
        keyed.collect()
    }

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    prop_compose! {
        fn net()(number in 0..ADDRESSES, bits in 28_u8..=32) -> IpNet {
            let net = Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + number), bits).expect("at most 32");
            net.trunc().into()
        }
    }

    proptest! {
        #[test]
        fn every_address_is_decided_as_before_or_as_afterwards_after_each_step(
            before in hash_map(net(), 0_u8..4, 0..12),
            afterwards in hash_map(net(), 0_u8..4, 0..12),
        ) {
            let (before, afterwards) = (table(&before), table(&afterwards));
            let gone = before.keys().filter(|key| !afterwards.contains_key(*key));
            let new = afterwards.clone().into_iter().collect();
            let exchange = Exchange::in_order(new, gone.copied().collect());
            let mut now = before.clone();
            let writes = exchange.writes.iter().map(|(key, value)| (key, Some(*value)));
            let deletes = exchange.deletes.iter().map(|key| (key, None));
            for (key, value) in writes.chain(deletes) {
                match value {
                    Some(value) => now.insert(*key, value),
                    None => now.remove(key),
                };
                for address in (0..ADDRESSES).map(address) {
                    let decided = longest(&now, address);
                    let known = [longest(&before, address), longest(&afterwards, address)];
                    prop_assert!(known.contains(&decided), "{address}: {decided:?}, not {known:?}");
                }
            }
            prop_assert_eq!(now, afterwards);
        }
    }
}
