//! Values, leaves, nodes, and the graph that holds them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::{Error, Op, Result};

/// Sizes of the axes, outermost first. Matrices of tokens are `[N, C]`.
pub type Shape = Vec<usize>;

/// Number of elements of a shape.
pub fn volume(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Element type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float: everything that has a gradient.
    F32,
    /// 32-bit index.
    U32,
    /// Pixels.
    U8,
}

impl DType {
    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::U8 => 1,
        }
    }
}

/// Handle of a value in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

impl Value {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A value that comes from outside at run time: a parameter, a batch, a scalar of a schedule.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Unique within the graph; bindings are made by it.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// One application of an operator.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Arc<dyn Op>,
    /// Its operands, in the operator's order.
    pub inputs: Vec<Value>,
    /// Its results.
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
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) nodes: Vec<Node>,
    /// Ranges of nodes whose results are computed again in the backward pass: apart from each other, or one inside another that comes first.
    pub(crate) segments: Vec<Range<usize>>,
    checkpointing: bool,
    phase: &'static str,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph { phase: "forward", ..Graph::default() }
    }

    /// Nodes added from now on belong to this part of the step.
    pub fn set_phase(&mut self, phase: &'static str) {
        self.phase = phase;
    }

    /// With checkpointing, results inside the [segments](Graph::segment) that are added from now on are not kept for the backward pass.
    pub fn set_checkpointing(&mut self, on: bool) {
        self.checkpointing = on;
    }

    /// Adds a part of the network whose inner results can be computed again from its operands: a block of a backbone. It changes no
    /// number, only what is kept in memory. A segment inside another is computed again with that, and on its own when its gradients come: its
    /// results do not wait through the gradients of what follows it there.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn segment<T>(&mut self, build: impl FnOnce(&mut Graph) -> Result<T>) -> Result<T> {
        let (first, at) = (self.nodes.len(), self.segments.len());
        let built = build(self);
        if self.checkpointing && self.nodes.len() > first {
            self.segments.insert(at, first..self.nodes.len());
        }
        built
    }

    /// First results of the nodes whose operators are [cheap](Op::recompute_in_backward), and the number of the node.
    pub(crate) fn cheap_results(&self) -> HashMap<Value, usize> {
        let nodes = self.nodes.iter().enumerate().filter(|(_, node)| node.op.recompute_in_backward());
        nodes.map(|(i, node)| (node.outputs[0], i)).collect()
    }

    /// Adds the nodes of a range once more, on the same operands or what `known` has for them. The result maps old results to new ones.
    pub(crate) fn repeat(&mut self, range: Range<usize>, known: &HashMap<Value, Value>) -> Result<HashMap<Value, Value>> {
        let mut again = HashMap::new();
        for index in range {
            let node = self.nodes[index].clone();
            let inputs: Vec<Value> = node.inputs.iter().map(|v| *again.get(v).or(known.get(v)).unwrap_or(v)).collect();
            let outputs = self.apply_shared(node.op, &inputs)?;
            again.extend(node.outputs.into_iter().zip(outputs));
        }
        Ok(again)
    }

    /// Adds a value that is given at run time. Asking for a name again returns the same value.
    ///
    /// # Errors
    /// When the name exists with another shape or type.
    pub fn leaf(&mut self, name: &str, shape: &[usize], dtype: DType) -> Result<Value> {
        if let Some(leaf) = self.leaves.iter().find(|leaf| leaf.name == name) {
            let known = &self.values[leaf.value.index()];
            if known.shape != shape || known.dtype != dtype {
                return Err(Error::Binding {
                    name: name.to_string(),
                    want: format!("{:?} {:?}", known.dtype, known.shape),
                    got: format!("{dtype:?} {shape:?}"),
                });
            }
            return Ok(leaf.value);
        }
        let value = self.push_value(shape.to_vec(), dtype);
        self.leaves.push(Leaf { name: name.to_string(), value });
        Ok(value)
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

    /// All leaves, in the order they were added.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// All nodes, in running order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}
