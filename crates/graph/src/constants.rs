//! What operators make of operands that never change: weights in evaluation, brought into the order in which their kernels read them.

use std::any::Any;

use esvit_simd::Pool;

use crate::program::Place;
use crate::{Arena, Bindings, NodeTime, Program, Result, Slice, Value, Variant};

/// What one operator made of its constant operands.
pub struct Prepacked {
    /// Whatever its fast version wants.
    pub value: Box<dyn Any + Send + Sync>,
    /// Operands that its fast version reads no more.
    pub replaces: Vec<usize>,
    /// Bytes of the value.
    pub bytes: usize,
}

impl std::fmt::Debug for Prepacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prepacked({} bytes for operands {:?})", self.bytes, self.replaces)
    }
}

/// The same for all nodes of a program.
#[derive(Debug, Default)]
pub struct Constants {
    pub(crate) nodes: Vec<Option<Prepacked>>,
    /// Leaves that no node reads any more.
    pub(crate) replaced: Vec<bool>,
}

impl Constants {
    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.nodes.iter().flatten().map(|p| p.bytes).sum()
    }

    pub(crate) fn of(&self, node: usize) -> Option<&(dyn Any + Send + Sync)> {
        self.nodes.get(node)?.as_ref().map(|p| &*p.value)
    }
}

/// Where operands that never change come from.
pub trait Leaves {
    /// Values of a leaf; `None` where they change.
    fn slice(&self, leaf: &str) -> Option<Slice<'_>>;
    /// Nobody reads this leaf any more.
    fn release(&mut self, leaf: &str);
}

/// Bindings keep what they borrow.
impl Leaves for Bindings<'_> {
    fn slice(&self, leaf: &str) -> Option<Slice<'_>> {
        self.slices.iter().rev().find(|(name, _)| *name == leaf).map(|(_, slice)| *slice)
    }

    fn release(&mut self, _leaf: &str) {}
}

impl Program {
    /// Lets every operator prepare its operands that never change as long as the result is used. The fast version reads them from there. Each
    /// leaf that nobody reads any more is released as soon as its last reader is done, so that both forms of all leaves are never in memory at
    /// once.
    ///
    /// # Panics
    /// When a slice is shorter or of another type than its leaf: a broken invariant of the caller.
    pub fn prepack(&self, leaves: &mut impl Leaves) -> Constants {
        let mut last = vec![None; self.leaf_names.len()];
        for (time, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().filter_map(|v| self.leaf(*v)).for_each(|leaf| last[leaf] = Some(time));
        }
        last.iter().zip(&self.leaf_names).filter(|(last, _)| last.is_none()).for_each(|(_, leaf)| leaves.release(leaf));
        let mut read = vec![false; self.leaf_names.len()];
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for (time, node) in self.nodes.iter().enumerate() {
            let slice = |v: &Value| self.leaf(*v).and_then(|leaf| leaves.slice(&self.leaf_names[leaf]));
            let operands: Vec<Option<Slice>> = node.inputs.iter().map(slice).collect();
            let prepacked = node.op.prepack(&operands, &self.operand_shapes(node), self.precision);
            for (i, leaf) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, self.leaf(*v)?))) {
                read[leaf] |= prepacked.as_ref().is_none_or(|p| !p.replaces.contains(&i));
                if last[leaf] == Some(time) && !read[leaf] {
                    leaves.release(&self.leaf_names[leaf]);
                }
            }
            nodes.push(prepacked);
        }
        Constants { nodes, replaced: read.into_iter().map(|read| !read).collect() }
    }

    /// Leaves that need no slice in a run with these constants: nobody reads them.
    pub fn replaced(&self, constants: &Constants) -> impl Iterator<Item = &str> {
        self.leaf_names.iter().zip(&constants.replaced).filter(|(_, replaced)| **replaced).map(|(name, _)| name.as_str())
    }

    /// [`Program::run`] with operands that were [prepacked](Program::prepack).
    ///
    /// # Errors
    /// As there; replaced leaves need no slice.
    pub fn run_prepacked(
        &self,
        constants: &Constants,
        arena: &mut Arena,
        bindings: &Bindings,
        pool: &Pool,
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<()> {
        self.walk(0..self.nodes.len(), constants, arena, bindings, pool, Variant::Fast, times)
    }

    fn leaf(&self, value: Value) -> Option<usize> {
        match self.places[value.index()] {
            Place::Leaf(i) => Some(i),
            _ => None,
        }
    }
}
