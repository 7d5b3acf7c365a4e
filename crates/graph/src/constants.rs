//! Operands that never change, in the form in which kernels read them.

use std::any::Any;

/// Constant operands of one operator, prepacked for its fast version.
pub struct Prepacked {
    /// Anything the fast version downcasts.
    pub value: Box<dyn Any + Send + Sync>,
    /// Operands that the fast version no longer reads.
    pub replaces: Vec<usize>,
    /// Bytes of the value.
    pub bytes: usize,
}

impl std::fmt::Debug for Prepacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prepacked({} bytes for operands {:?})", self.bytes, self.replaces)
    }
}

/// Prepacked operands of all nodes of a program.
#[derive(Debug, Default)]
pub struct Constants {
    pub(crate) nodes: Vec<Option<Prepacked>>,
    /// Whether no node reads this leaf any more; for every leaf of the graph.
    pub(crate) replaced: Vec<bool>,
}

impl Constants {
    /// Bytes of all prepacked operands.
    pub fn bytes(&self) -> usize {
        self.nodes.iter().flatten().map(|p| p.bytes).sum()
    }

    pub(crate) fn of(&self, node: usize) -> Option<&(dyn Any + Send + Sync)> {
        self.nodes.get(node)?.as_ref().map(|p| &*p.value)
    }
}
