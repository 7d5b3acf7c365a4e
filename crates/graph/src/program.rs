//! A compiled program: the nodes that matter, and where every value is stored.

use std::collections::HashMap;

use crate::plan::Lifetime;
use crate::ready::ReadyPoint;
use crate::{Bindings, DType, Leaf, Node, Precision, Shape, Value};

/// A graph that was planned: it can run as often as you like.
#[derive(Debug)]
pub struct Program {
    pub(crate) nodes: Vec<Node>,
    /// For every value of the graph.
    pub(crate) storage: Vec<Storage>,
    /// For every value of the graph.
    pub(crate) shapes: Vec<Shape>,
    /// For every leaf of the graph.
    pub(crate) leaves: Vec<ProgramLeaf>,
    pub(crate) leaf_index: HashMap<String, Leaf>,
    pub(crate) ready_points: Vec<ReadyPoint>,
    pub(crate) arena_bytes: usize,
    /// Values in the arena, and when they are alive.
    pub(crate) lifetimes: Vec<(Value, Lifetime)>,
    /// Results that are read from outside.
    pub(crate) outputs: Vec<Value>,
    pub(crate) precision: Precision,
}

/// A leaf as a program reads it.
#[derive(Debug)]
pub(crate) struct ProgramLeaf {
    pub name: String,
    pub len: usize,
    pub dtype: DType,
    /// Whether a node of the program reads it.
    pub is_read: bool,
}

/// Where a value is while a program runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Storage {
    /// In the slice bound to this leaf.
    Leaf(Leaf),
    /// At a byte offset in the arena.
    Arena { offset: usize, len: usize, dtype: DType },
    /// At a byte offset in the arena, as words of two bf16.
    Bf16x2 { offset: usize, words: usize },
    /// Nowhere: no node of the program reads or writes it.
    Nowhere,
}

impl Program {
    /// Sets the rounding of the program's matrix products.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Program {
        Program { precision, ..self }
    }

    /// Points at which gradients are ready and consumed, in running order.
    pub fn ready_points(&self) -> &[ReadyPoint] {
        &self.ready_points
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Bytes of the largest value in the arena: a buffer must hold it.
    pub fn largest_bytes(&self) -> usize {
        self.lifetimes.iter().map(|(_, life)| life.bytes).max().unwrap_or(0)
    }

    /// Scratch bytes of the node that takes most, with `threads` threads.
    pub fn scratch_bytes(&self, threads: usize) -> usize {
        self.nodes.iter().map(|node| node.op.scratch(&self.operand_shapes(node), threads)).max().unwrap_or(0)
    }

    /// Nodes, in running order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn operand_shapes(&self, node: &Node) -> Vec<&Shape> {
        node.inputs.iter().map(|v| &self.shapes[v.index()]).collect()
    }

    /// Shapes and types of a node's operands.
    pub fn operands(&self, node: &Node) -> Vec<(&Shape, DType)> {
        let dtype = |v: &Value| match self.storage[v.index()] {
            Storage::Leaf(leaf) => self.leaves[leaf.index()].dtype,
            Storage::Arena { dtype, .. } => dtype,
            Storage::Bf16x2 { .. } => DType::F32,
            Storage::Nowhere => unreachable!("an operand of a program's node is stored"),
        };
        node.inputs.iter().map(|v| (&self.shapes[v.index()], dtype(v))).collect()
    }

    /// Matrix-product arithmetic of one run.
    pub fn flops(&self) -> u64 {
        self.nodes.iter().map(|node| self.node_flops(node)).sum()
    }

    /// Matrix-product arithmetic of each node, in running order.
    pub fn flops_of_nodes(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| self.node_flops(node)).collect()
    }

    pub(crate) fn node_flops(&self, node: &Node) -> u64 {
        node.op.flops(&self.operand_shapes(node))
    }

    /// Handle of the leaf with this name; `None` where the program does not read it.
    pub fn leaf(&self, name: &str) -> Option<Leaf> {
        self.leaf_index.get(name).copied().filter(|leaf| self.leaves[leaf.index()].is_read)
    }

    /// Names, numbers of elements and types of the leaves the program reads.
    pub fn leaves(&self) -> impl Iterator<Item = (&str, usize, DType)> {
        self.leaves.iter().filter(|leaf| leaf.is_read).map(|leaf| (leaf.name.as_str(), leaf.len, leaf.dtype))
    }

    /// Handles of all leaves of the graph.
    pub(crate) fn leaf_handles(&self) -> impl Iterator<Item = Leaf> {
        (0..).map(Leaf).take(self.leaves.len())
    }

    /// Bindings by name, for programs that run a few times: a step resolves its [handles](Program::leaf) once. Names that the program does
    /// not read are passed over.
    pub fn bind<T>(&self, named: impl IntoIterator<Item = (impl AsRef<str>, T)>) -> Bindings<T> {
        let mut bindings = Bindings::new();
        for (name, item) in named {
            if let Some(leaf) = self.leaf(name.as_ref()) {
                bindings.bind(leaf, item);
            }
        }
        bindings
    }
}
