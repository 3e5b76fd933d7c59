//! State maps by their pins, for what only the programs write.

use super::Lab;
use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use kedge_abi::STATE_VERSION;

pub fn hash<K: Pod, V: Pod>(lab: &Lab, name: &str) -> HashMap<MapData, K, V> {
    let pin = lab
        .bpffs()
        .join(format!("state-{STATE_VERSION}"))
        .join(name);
    let map = Map::HashMap(MapData::from_pin(pin).expect("pinned"));
    map.try_into().expect("a hash map of these types")
}
