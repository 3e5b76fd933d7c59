//! A tree of hashes (RFC 6962, 2.1, with SHA-256), so that one quote answers many challenges.
//!
//! A leaf's hash begins with 0x00 ([`Claims::leaf`](crate::Claims::leaf)), an inner node's with 0x01,
//! so neither can be taken for the other.

use crate::digest::Sha256;
use crate::limits::LEAVES_MAX;

/// Why a proof does not lead from a leaf to a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("a tree of {0} leaves, not 1 to {LEAVES_MAX}")]
    Size(u64),
    #[error("leaf {index} of a tree of {size}")]
    Index { index: u64, size: u64 },
    #[error("{0} nodes too few in the inclusion proof")]
    TooShort(usize),
    #[error("{0} nodes too many in the inclusion proof")]
    TooLong(usize),
}

/// Where a leaf is in a tree, and the nodes that lead to the root, from the leaf up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    pub size: u64,
    pub index: u64,
    pub nodes: Vec<Sha256>,
}

/// All nodes, level by level, leaves first. A last node without a sibling goes up unchanged.
#[derive(Debug)]
pub struct Tree {
    levels: Vec<Vec<Sha256>>,
}

impl Tree {
    /// `None` for no leaf, or more than [`LEAVES_MAX`].
    #[must_use]
    pub fn new(leaves: Vec<Sha256>) -> Option<Self> {
        if leaves.is_empty() || leaves.len() > LEAVES_MAX {
            return None;
        }
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => inner(left, right),
                alone => alone[0],
            });
            let above = above.collect();
            levels.push(above);
        }
        Some(Self { levels })
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels[0].len() as u64
    }

    #[must_use]
    pub fn root(&self) -> Sha256 {
        self.levels[self.levels.len() - 1][0]
    }

    /// The proof of leaf `index`; `None` when there is no such leaf.
    #[must_use]
    pub fn inclusion(&self, index: usize) -> Option<Inclusion> {
        self.levels[0].get(index)?;
        let siblings = self.levels.iter().enumerate();
        let nodes = siblings.filter_map(|(up, level)| level.get((index >> up) ^ 1).copied());
        Some(Inclusion {
            size: self.size(),
            index: index as u64,
            nodes: nodes.collect(),
        })
    }
}

impl Inclusion {
    /// The root that this proof leads to from `leaf`.
    ///
    /// # Errors
    /// When size and index do not go together, or a node is missing or too many.
    pub fn root(&self, leaf: Sha256) -> Result<Sha256, ProofError> {
        let Self { size, index, .. } = *self;
        if size == 0 || size > LEAVES_MAX as u64 {
            return Err(ProofError::Size(size));
        }
        if index >= size {
            return Err(ProofError::Index { index, size });
        }
        let mut nodes = self.nodes.iter();
        let (mut at, mut last, mut root, mut missing) = (index, size - 1, leaf, 0);
        while last > 0 {
            let has_sibling = at & 1 == 1 || at < last;
            match has_sibling.then(|| nodes.next()) {
                Some(Some(left)) if at & 1 == 1 => root = inner(left, &root),
                Some(Some(right)) => root = inner(&root, right),
                Some(None) => missing += 1,
                None => {}
            }
            (at, last) = (at >> 1, last >> 1);
        }
        match (missing, nodes.len()) {
            (0, 0) => Ok(root),
            (0, extra) => Err(ProofError::TooLong(extra)),
            (missing, _) => Err(ProofError::TooShort(missing)),
        }
    }
}

fn inner(left: &Sha256, right: &Sha256) -> Sha256 {
    Sha256::of(&[&[1], &left.0, &right.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: usize) -> Vec<Sha256> {
        (0..count)
            .map(|n| Sha256::of(&[&n.to_be_bytes()]))
            .collect()
    }

    /// As RFC 6962 defines it: split at the largest power of two that is smaller than the size.
    fn root_by_definition(leaves: &[Sha256]) -> Sha256 {
        match leaves {
            [one] => *one,
            many => {
                let split = many.len().next_power_of_two() / 2;
                let (left, right) = many.split_at(split);
                inner(&root_by_definition(left), &root_by_definition(right))
            }
        }
    }

    #[test]
    fn every_leaf_of_every_size_leads_to_the_root_that_the_rfc_defines() {
        for size in 1..70 {
            let leaves = leaves(size);
            let tree = Tree::new(leaves.clone()).expect("within the bound");
            assert_eq!(tree.root(), root_by_definition(&leaves), "{size} leaves");
            for (at, leaf) in leaves.iter().enumerate() {
                let proof = tree.inclusion(at).expect("a leaf");
                assert_eq!(proof.root(*leaf), Ok(tree.root()), "leaf {at} of {size}");
            }
            assert_eq!(tree.inclusion(size), None);
        }
    }

    #[test]
    fn a_node_too_many_or_too_few_is_refused_wherever_it_is() {
        for size in 1..40 {
            let leaves = leaves(size);
            let tree = Tree::new(leaves.clone()).expect("within the bound");
            for (at, leaf) in leaves.iter().enumerate() {
                let proof = tree.inclusion(at).expect("a leaf");
                let mut longer = proof.clone();
                longer.nodes.push(*leaf);
                assert_eq!(longer.root(*leaf), Err(ProofError::TooLong(1)));
                let mut shorter = proof;
                if shorter.nodes.pop().is_some() {
                    assert_eq!(shorter.root(*leaf), Err(ProofError::TooShort(1)));
                }
            }
        }
    }

    #[test]
    fn a_proof_with_another_size_or_index_is_refused_or_leads_elsewhere() {
        let leaves = leaves(7);
        let tree = Tree::new(leaves.clone()).expect("within the bound");
        let proof = tree.inclusion(2).expect("a leaf");
        let with = |size, index| Inclusion {
            size,
            index,
            ..proof.clone()
        };
        assert_eq!(with(0, 0).root(leaves[2]), Err(ProofError::Size(0)));
        assert_eq!(
            with(7, 7).root(leaves[2]),
            Err(ProofError::Index { index: 7, size: 7 })
        );
        assert!(with(u64::MAX, 2).root(leaves[2]).is_err());
        for index in (0..7).filter(|index| *index != 2) {
            assert_ne!(with(7, index).root(leaves[2]), Ok(tree.root()), "{index}");
        }
    }

    #[test]
    fn a_tree_past_its_bound_is_none() {
        assert!(Tree::new(Vec::new()).is_none());
        assert!(Tree::new(leaves(LEAVES_MAX)).is_some());
        assert!(Tree::new(leaves(LEAVES_MAX + 1)).is_none());
    }

    proptest! {
        #[test]
        fn no_changed_node_leads_to_the_root(size in 2_usize..200, at in any::<prop::sample::Index>(), bit in 0_usize..256) {
            let leaves = leaves(size);
            let at = at.index(size);
            let tree = Tree::new(leaves.clone()).expect("within the bound");
            let mut proof = tree.inclusion(at).expect("a leaf");
            let node = at % proof.nodes.len();
            proof.nodes[node].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(proof.root(leaves[at]), Ok(tree.root()));
        }
    }
}
