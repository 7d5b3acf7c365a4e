//! What operators make of operands that never change: weights in evaluation, brought into the order in which their kernels read them.

use std::any::Any;

use esvit_simd::Pool;

use crate::program::Place;
use crate::{Arena, Bindings, Node, NodeTime, Program, Result, Slice, Value, Variant};

/// What one operator made of its constant operands.
pub struct Prepared {
    /// Whatever its fast version wants.
    pub value: Box<dyn Any + Send + Sync>,
    /// Operands that its fast version reads no more.
    pub replaces: Vec<usize>,
    /// Bytes of the value.
    pub bytes: usize,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prepared({} bytes for operands {:?})", self.bytes, self.replaces)
    }
}

/// The same for all nodes of a program.
#[derive(Debug, Default)]
pub struct Constants {
    pub(crate) nodes: Vec<Option<Prepared>>,
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

impl Program {
    /// Lets every operator prepare the operands that are bound here, which must not change as long as the result is used. The fast version reads
    /// them from there.
    ///
    /// # Panics
    /// When a slice is shorter or of another type than its leaf: a broken invariant of the caller.
    pub fn prepare(&self, constants: &Bindings) -> Constants {
        let slices = self.find(constants);
        let mut read = vec![false; self.leaf_names.len()];
        let prepare = |node: &Node| {
            let operands: Vec<Option<Slice>> = node.inputs.iter().map(|v| self.leaf(*v).and_then(|leaf| slices[leaf])).collect();
            let prepared = node.op.prepare(&operands, &self.operand_shapes(node), self.precision);
            for (i, value) in node.inputs.iter().enumerate() {
                if let Some(leaf) = self.leaf(*value) {
                    read[leaf] |= prepared.as_ref().is_none_or(|p| !p.replaces.contains(&i));
                }
            }
            prepared
        };
        let nodes: Vec<Option<Prepared>> = self.nodes.iter().map(prepare).collect();
        Constants { nodes, replaced: read.into_iter().map(|read| !read).collect() }
    }

    /// Leaves that need no slice in a run with these constants: nobody reads them.
    pub fn replaced(&self, constants: &Constants) -> impl Iterator<Item = &str> {
        self.leaf_names.iter().zip(&constants.replaced).filter(|(_, replaced)| **replaced).map(|(name, _)| name.as_str())
    }

    /// [`Program::run`] with operands that were [prepared](Program::prepare).
    ///
    /// # Errors
    /// As there; replaced leaves need no slice.
    pub fn run_prepared(
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
