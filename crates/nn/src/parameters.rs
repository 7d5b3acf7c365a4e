//! Declared parameters and buffers: names, shapes and initial values, in the order of the original's state dict.

use esvit_graph::{DType, Graph, Result, Shape, Value, volume};

/// Initial values of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// One value everywhere.
    Constant(f32),
    /// Normal with this deviation. The original's truncated normal cuts at ±2, a hundred deviations away: it never cuts.
    Normal(f32),
    /// Uniform between plus and minus this bound.
    Uniform(f32),
}

/// Use of an entry of the state dict.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Trained by the optimizer.
    Parameter,
    /// In the model and in the teacher's average, but never trained: frozen magnitudes.
    Frozen,
    /// Running statistic, or a count kept as a float.
    Buffer,
    /// Integers that follow from the architecture; only written to checkpoints.
    Constant(Vec<i64>),
    /// The entry of this name under a second one: in checkpoints, nowhere else.
    Alias(String),
}

impl Role {
    /// Whether the network reads values of the entry's own.
    pub fn has_values(&self) -> bool {
        !matches!(self, Role::Constant(_) | Role::Alias(_))
    }
}

/// One entry of the state dict.
#[derive(Clone, Debug)]
pub struct ParameterEntry {
    /// Name in checkpoints, the original's.
    pub name: String,
    /// Shape in checkpoints.
    pub shape: Shape,
    /// Initial values.
    pub init: Init,
    /// Use of the entry.
    pub role: Role,
}

impl ParameterEntry {
    /// Whether weight decay applies: not to biases and other one-dimensional tensors.
    pub fn is_decayed(&self) -> bool {
        self.shape.len() > 1 && !self.name.ends_with(".bias")
    }

    /// Whether it belongs to the prototypes, which stay frozen for the first epochs.
    pub fn is_last_layer(&self) -> bool {
        self.name.contains("last_layer")
    }

    /// Number of elements.
    pub fn volume(&self) -> usize {
        volume(&self.shape)
    }
}

/// Everything one network declared, in order.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// The entries.
    pub entries: Vec<ParameterEntry>,
}

/// A name prefix in a network: `student:` or `teacher:`, then the module path. Layers declare their parameters through it.
pub struct Scope<'a> {
    parameters: &'a mut Parameters,
    /// Distinguishes the leaves of two networks in one graph.
    network: &'a str,
    path: String,
}

impl<'a> Scope<'a> {
    /// The root of a network.
    pub fn root(parameters: &'a mut Parameters, network: &'a str) -> Scope<'a> {
        Scope { parameters, network, path: String::new() }
    }

    /// Path of this module in its network.
    pub fn module(&self) -> &str {
        self.path.trim_end_matches('.')
    }

    /// A sub-module.
    pub fn child(&mut self, name: &str) -> Scope<'_> {
        Scope { path: format!("{}{name}.", self.path), parameters: self.parameters, network: self.network }
    }

    /// Declares a trained parameter and returns its leaf.
    pub fn parameter(&mut self, g: &mut Graph, name: &str, shape: &[usize], init: Init) -> Result<Value> {
        self.declare(g, name, shape, init, Role::Parameter)
    }

    /// Declares an entry with a float leaf.
    pub fn declare(&mut self, g: &mut Graph, name: &str, shape: &[usize], init: Init, role: Role) -> Result<Value> {
        self.declare_as(g, name, shape, shape, init, role)
    }

    /// Declares an entry whose leaf has another shape of the same size: operators see matrices, checkpoints
    /// the original's shapes.
    pub fn declare_as(&mut self, g: &mut Graph, name: &str, shape: &[usize], leaf: &[usize], init: Init, role: Role) -> Result<Value> {
        let name = format!("{}{name}", self.path);
        let leaf = g.leaf(&leaf_name(self.network, &name), leaf, DType::F32)?;
        self.parameters.entries.push(ParameterEntry { name, shape: shape.to_vec(), init, role });
        Ok(leaf)
    }

    /// Declares integers that only checkpoints hold.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: Vec<i64>) {
        let name = format!("{}{name}", self.path);
        self.parameters.entries.push(ParameterEntry {
            name,
            shape: shape.to_vec(),
            init: Init::Constant(0.0),
            role: Role::Constant(values),
        });
    }
}

/// A linear layer's entries once more, under the names of `scope`, with the values of the module `of` beside it.
pub fn alias_linear(scope: &mut Scope, name: &str, of: &str, input: usize, output: usize, bias: bool) {
    let mut entry = |leaf: &str, shape: &[usize]| {
        let (own, other) = (format!("{}{name}.{leaf}", scope.path), format!("{}{of}.{leaf}", scope.path));
        scope.parameters.entries.push(ParameterEntry {
            name: own,
            shape: shape.to_vec(),
            init: Init::Constant(0.0),
            role: Role::Alias(other),
        });
    };
    entry("weight", &[output, input]);
    if bias {
        entry("bias", &[output]);
    }
}

/// Name of the leaf of a network's parameter.
pub fn leaf_name(network: &str, parameter: &str) -> String {
    format!("{network}:{parameter}")
}
