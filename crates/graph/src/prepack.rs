//! Prepacking: weights of an evaluation are put once into the order in which kernels read them.

use esvit_simd::Pool;

use crate::program::Storage;
use crate::run::Run;
use crate::{Arena, Bindings, Constants, Leaf, NodeTime, Program, Result, Slice, Value, Variant};

/// Source of operands that never change.
pub trait LeafSource {
    /// Values of a leaf; `None` where they change.
    fn slice(&self, leaf: Leaf) -> Option<Slice<'_>>;
    /// Tells that nobody reads this leaf any more.
    fn release(&mut self, leaf: Leaf);
}

/// Bindings keep what they borrow.
impl LeafSource for Bindings<Slice<'_>> {
    fn slice(&self, leaf: Leaf) -> Option<Slice<'_>> {
        self.get(leaf).copied()
    }

    fn release(&mut self, _leaf: Leaf) {}
}

impl Program {
    /// Lets every operator prepack its operands that never change as long as the result is used. The fast version reads them from there.
    /// Each leaf that nobody reads any more is released as soon as its last reader is done, so that both forms of all leaves are never in
    /// memory at once.
    ///
    /// # Panics
    /// When a slice is shorter or of another type than its leaf: a broken invariant of the caller.
    pub fn prepack(&self, leaves: &mut impl LeafSource) -> Constants {
        let mut last = vec![None; self.leaves.len()];
        for (time, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().filter_map(|v| self.leaf_of(*v)).for_each(|leaf| last[leaf.index()] = Some(time));
        }
        let unread = last.iter().zip(self.leaf_handles()).filter(|(last, leaf)| last.is_none() && self.leaves[leaf.index()].is_read);
        unread.for_each(|(_, leaf)| leaves.release(leaf));
        let mut read = vec![false; self.leaves.len()];
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (time, node) in self.nodes.iter().enumerate() {
            let slice = |v: &Value| self.leaf_of(*v).and_then(|leaf| leaves.slice(leaf));
            let operands: Vec<Option<Slice>> = node.inputs.iter().map(slice).collect();
            let prepacked = node.op.prepack(&operands, &self.operand_shapes(node), self.precision);
            for (i, leaf) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, self.leaf_of(*v)?))) {
                read[leaf.index()] |= prepacked.as_ref().is_none_or(|p| !p.replaces.contains(&i));
                if last[leaf.index()] == Some(time) && !read[leaf.index()] {
                    leaves.release(leaf);
                }
            }
            nodes.push(prepacked);
        }
        Constants { nodes, replaced: read.into_iter().map(|read| !read).collect() }
    }

    /// Names of the leaves that need no slice in a run with these constants: nobody reads them.
    pub fn replaced(&self, constants: &Constants) -> impl Iterator<Item = &str> {
        let leaves = self.leaves.iter().zip(&constants.replaced);
        leaves.filter(|(leaf, replaced)| **replaced && leaf.is_read).map(|(leaf, _)| leaf.name.as_str())
    }

    /// Runs every node once, with operands that were [prepacked](Program::prepack).
    ///
    /// # Errors
    /// As [`Program::run`]; replaced leaves need no slice.
    pub fn run_prepacked(
        &self,
        constants: &Constants,
        arena: &mut Arena,
        bindings: &Bindings<Slice>,
        pool: &Pool,
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<()> {
        self.walk(0..self.nodes.len(), Run { constants, arena, bindings, pool, variant: Variant::Fast, times })
    }

    fn leaf_of(&self, value: Value) -> Option<Leaf> {
        match self.storage[value.index()] {
            Storage::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }
}
