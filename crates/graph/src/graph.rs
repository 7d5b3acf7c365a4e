//! Leaves, nodes, and the graph that holds them.

pub(crate) mod op;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::{DType, Error, Leaf, Op, Result, Shape, Value};

/// A value that comes from outside at run time, with its name: a parameter, a batch, a scalar of a schedule.
#[derive(Clone, Debug)]
pub struct NamedLeaf {
    /// Name, unique within the graph.
    pub name: String,
    /// Value that operators read.
    pub value: Value,
}

/// One application of an operator.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operator.
    pub op: Arc<dyn Op>,
    /// Operands, in the operator's order.
    pub inputs: Vec<Value>,
    /// Results, in the operator's order.
    pub outputs: Vec<Value>,
    /// Part of the step this belongs to; profiles are split by it.
    pub phase: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct ValueInfo {
    pub shape: Shape,
    pub dtype: DType,
}

/// Values and nodes in the order they were added, which is an order they can run in.
#[derive(Debug, Default)]
pub struct Graph {
    pub(crate) values: Vec<ValueInfo>,
    pub(crate) leaves: Vec<NamedLeaf>,
    leaf_index: HashMap<String, Leaf>,
    pub(crate) nodes: Vec<Node>,
    /// Ranges of nodes that the backward pass recomputes: disjoint, or one inside another, which then comes first.
    pub(crate) segments: Vec<Range<usize>>,
    checkpointing: bool,
    phase: &'static str,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph { phase: "forward", ..Graph::default() }
    }

    /// Sets the part of the step that nodes added from now on belong to.
    pub fn set_phase(&mut self, phase: &'static str) {
        self.phase = phase;
    }

    /// Turns activation checkpointing on or off for the [segments](Graph::segment) added from now on: with it the backward pass recomputes
    /// the results inside a segment instead of keeping them.
    pub fn set_checkpointing(&mut self, on: bool) {
        self.checkpointing = on;
    }

    /// Adds a part of the network whose inner results can be recomputed from its operands: a block of a backbone. It changes no number,
    /// only what is kept in memory. A segment inside another is recomputed with that one, and alone when its own gradients come: its results
    /// do not wait through the gradients of what follows it there.
    ///
    /// # Errors
    /// Errors of `build`.
    pub fn segment<T>(&mut self, build: impl FnOnce(&mut Graph) -> Result<T>) -> Result<T> {
        let (first, at) = (self.nodes.len(), self.segments.len());
        let built = build(self);
        if self.checkpointing && self.nodes.len() > first {
            self.segments.insert(at, first..self.nodes.len());
        }
        built
    }

    /// Adds a value that is given at run time. Asking for a name again returns the same value.
    ///
    /// # Errors
    /// When the name exists with another shape or type.
    pub fn leaf(&mut self, name: &str, shape: &[usize], dtype: DType) -> Result<Value> {
        if let Some(leaf) = self.leaf_index.get(name) {
            let value = self.leaves[leaf.index()].value;
            let known = &self.values[value.index()];
            if known.shape != shape || known.dtype != dtype {
                return Err(Error::Binding {
                    name: name.to_string(),
                    want: format!("{:?} {:?}", known.dtype, known.shape),
                    got: format!("{dtype:?} {shape:?}"),
                });
            }
            return Ok(value);
        }
        let value = self.push_value(shape.to_vec(), dtype);
        let leaf = Leaf(u32::try_from(self.leaves.len()).expect("fewer leaves than values"));
        self.leaf_index.insert(name.to_string(), leaf);
        self.leaves.push(NamedLeaf { name: name.to_string(), value });
        Ok(value)
    }

    /// Handle of the leaf with this name.
    pub fn find_leaf(&self, name: &str) -> Option<Leaf> {
        self.leaf_index.get(name).copied()
    }

    /// Value of a leaf.
    pub fn leaf_value(&self, leaf: Leaf) -> Value {
        self.leaves[leaf.index()].value
    }

    /// All leaves, in the order they were added.
    pub fn leaves(&self) -> &[NamedLeaf] {
        &self.leaves
    }

    /// Applies an operator.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[Value]) -> Result<Vec<Value>> {
        self.apply_shared(Arc::new(op), inputs)
    }

    /// Applies an operator with one result.
    pub fn apply1(&mut self, op: impl Op + 'static, inputs: &[Value]) -> Result<Value> {
        Ok(self.apply(op, inputs)?[0])
    }

    /// Applies an operator that is already shared.
    pub fn apply_shared(&mut self, op: Arc<dyn Op>, inputs: &[Value]) -> Result<Vec<Value>> {
        let shapes: Vec<&Shape> = inputs.iter().map(|v| self.shape(*v)).collect();
        let results = op.infer(&shapes)?;
        let outputs: Vec<Value> = results.into_iter().map(|(shape, dtype)| self.push_value(shape, dtype)).collect();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.clone(), phase: self.phase });
        Ok(outputs)
    }

    fn push_value(&mut self, shape: Shape, dtype: DType) -> Value {
        self.values.push(ValueInfo { shape, dtype });
        Value(u32::try_from(self.values.len() - 1).expect("fewer than 2^32 values"))
    }

    /// Shape of a value.
    pub fn shape(&self, value: Value) -> &Shape {
        &self.values[value.index()].shape
    }

    /// Rows and columns of a matrix.
    ///
    /// # Panics
    /// When the value is not a matrix: callers pass what their own `infer` has checked.
    pub fn matrix(&self, value: Value) -> (usize, usize) {
        match self.shape(value)[..] {
            [rows, cols] => (rows, cols),
            ref other => panic!("a matrix was expected, not {other:?}"),
        }
    }

    /// All nodes, in running order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}
