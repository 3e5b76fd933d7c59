//! A BPF map as a typed table that any thread may use.

use crate::bpf;
use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What may stand in a map: plain bytes without padding, whatever they are.
pub(crate) trait Plain: FromBytes + IntoBytes + Immutable + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + Copy> Plain for T {}

/// A hash, array or LPM map of `K` to `V`; clones share the map.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    map: Arc<OwnedFd>,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self {
            map: Arc::clone(&self.map),
            types: PhantomData,
        }
    }
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// The caller states the types; the object file and the ABI version in the pin path keep them.
    pub(crate) fn new(map: OwnedFd) -> Self {
        Self {
            map: Arc::new(map),
            types: PhantomData,
        }
    }

    pub(crate) fn look_up(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::new_zeroed();
        let found = bpf::lookup(self.map.as_fd(), key.as_bytes(), value.as_mut_bytes())?;
        Ok(found.then_some(value))
    }

    pub(crate) fn insert(&self, key: &K, value: &V) -> io::Result<()> {
        bpf::update(self.map.as_fd(), key.as_bytes(), value.as_bytes())
    }

    pub(crate) fn remove(&self, key: &K) -> io::Result<bool> {
        bpf::delete(self.map.as_fd(), key.as_bytes())
    }

    pub(crate) fn keys(&self) -> io::Result<Vec<K>> {
        let mut keys: Vec<K> = Vec::new();
        let mut next = K::new_zeroed();
        while bpf::next_key(
            self.map.as_fd(),
            keys.last().map(IntoBytes::as_bytes),
            next.as_mut_bytes(),
        )? {
            keys.push(next);
        }
        Ok(keys)
    }
}

/// A table that only userspace writes, with what it holds, so that a new content is written as
/// the difference.
#[derive(Debug)]
pub(crate) struct Mirror<K, V> {
    table: Table<K, V>,
    held: HashMap<K, V>,
}

impl<K: Plain + Eq + Hash, V: Plain + PartialEq> Mirror<K, V> {
    /// Reads what the map holds from an earlier generation.
    pub(crate) fn read(table: Table<K, V>) -> io::Result<Self> {
        let mut held = HashMap::new();
        for key in table.keys()? {
            // Exact in an LPM map too: the longest match of a prefix that is there is itself.
            if let Some(value) = table.look_up(&key)? {
                held.insert(key, value);
            }
        }
        Ok(Self { table, held })
    }

    pub(crate) fn held(&self) -> &HashMap<K, V> {
        &self.held
    }

    /// Makes the table hold exactly `wanted`: what is new or different is written first, what is
    /// gone is deleted afterwards, so that no key that stays is missing for a moment.
    pub(crate) fn replace(&mut self, wanted: &HashMap<K, V>) -> io::Result<()> {
        self.add(wanted)?;
        self.delete(&self.gone(wanted))
    }

    /// Writes what is new or different.
    pub(crate) fn add(&mut self, wanted: &HashMap<K, V>) -> io::Result<()> {
        self.write(&self.missing(wanted))
    }

    /// What is new in `wanted` or has another value there.
    pub(crate) fn missing(&self, wanted: &HashMap<K, V>) -> Vec<(K, V)> {
        let missing = wanted
            .iter()
            .filter(|(key, value)| self.held.get(key) != Some(value));
        missing.map(|(key, value)| (*key, *value)).collect()
    }

    /// What is held and not wanted.
    pub(crate) fn gone(&self, wanted: &HashMap<K, V>) -> Vec<K> {
        let held = self.held.keys();
        held.filter(|key| !wanted.contains_key(key))
            .copied()
            .collect()
    }

    /// In this order.
    pub(crate) fn write(&mut self, entries: &[(K, V)]) -> io::Result<()> {
        for (key, value) in entries {
            self.table.insert(key, value)?;
            self.held.insert(*key, *value);
        }
        Ok(())
    }

    /// In this order.
    pub(crate) fn delete(&mut self, keys: &[K]) -> io::Result<()> {
        for key in keys {
            self.table.remove(key)?;
            self.held.remove(key);
        }
        Ok(())
    }
}
