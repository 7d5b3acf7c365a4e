//! A program on a GPU: the same plan, the same order of nodes.

use std::collections::HashMap;

use esvit_gpu::{Gpu, Recorder, View};

use crate::program::Place;
use crate::{DType, Error, GpuIo, Program, Result, Value};

/// The GPU memory of a program's intermediate values, and after a run its outputs.
#[derive(Debug)]
pub struct GpuArena {
    memory: View,
}

impl Program {
    /// GPU memory for this program.
    ///
    /// # Errors
    /// When the adapter has not that much.
    pub fn gpu_arena(&self, gpu: &Gpu) -> Result<GpuArena> {
        Ok(GpuArena { memory: gpu.allocate("the step's activations and gradients", self.arena_bytes() as u64)? })
    }

    /// Records every node. `leaves` are named as in the graph; they are read where they are each time the recording runs.
    ///
    /// # Errors
    /// When a leaf is missing or too small, or an operator has no kernels.
    pub fn record(&self, rec: &mut Recorder, arena: &GpuArena, leaves: &HashMap<String, View>) -> Result<()> {
        for (name, &(len, dtype)) in self.leaf_names.iter().zip(&self.leaf_types) {
            let got = leaves.get(name).map(View::bytes);
            if got.is_none_or(|bytes| bytes < (len * dtype.size()) as u64) {
                let got = got.map_or("nothing".into(), |bytes| format!("{bytes} bytes"));
                return Err(Error::Binding { name: name.clone(), want: format!("{len} x {dtype:?}"), got });
            }
        }
        for node in &self.nodes {
            rec.begin(node.op.name(), node.phase);
            let view = |v: &Value| match self.places[v.index()] {
                Place::Leaf(i) => {
                    let (len, dtype) = self.leaf_types[i];
                    leaves[&self.leaf_names[i]].part(0, words(len, dtype))
                }
                _ => self.gpu_output(arena, *v),
            };
            let io = GpuIo {
                inputs: node.inputs.iter().map(view).collect(),
                outputs: node.outputs.iter().map(view).collect(),
                shapes: self.operand_shapes(node),
                precision: self.precision,
            };
            node.op.gpu(&io, rec)?;
        }
        Ok(())
    }

    /// Where an output is after a run.
    ///
    /// # Panics
    /// When the value lives nowhere or is a leaf.
    pub fn gpu_output(&self, arena: &GpuArena, value: Value) -> View {
        match self.places[value.index()] {
            Place::Arena { offset, len, dtype } => arena.memory.part(offset as u64, words(len, dtype)),
            _ => panic!("this value is not an output of the program"),
        }
    }
}

/// Bytes of a value, in whole words: kernels see nothing smaller.
fn words(len: usize, dtype: DType) -> u64 {
    ((len * dtype.size()) as u64).next_multiple_of(4)
}
