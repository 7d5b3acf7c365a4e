//! A program on a GPU: the same plan, the same order of nodes.

use std::collections::HashMap;
use std::ops::Range;

use esvit_gpu::{Gpu, Recorder, View};

use crate::plan::{ALIGN, Lifetime, place};
use crate::program::Place;
use crate::{DType, Error, GpuIo, Program, Result, Value};

/// The GPU memory of a program's intermediate values, and after a run its outputs.
#[derive(Debug)]
pub struct GpuArena {
    /// Pieces of memory; a value lies inside one.
    memory: Vec<View>,
    chunk: usize,
    /// Offset of each value of the graph over all pieces.
    offsets: Vec<usize>,
}

impl Program {
    /// GPU memory for this program, in as many pieces as the adapter's largest buffer makes of it.
    ///
    /// # Errors
    /// When the adapter has not that much, or a single value is larger than its largest buffer.
    pub fn gpu_arena(&self, gpu: &Gpu) -> Result<GpuArena> {
        self.gpu_arena_of(gpu, gpu.adapter().max_buffer as usize)
    }

    /// The same with pieces of so many bytes, or of the largest value: for tests.
    pub fn gpu_arena_of(&self, gpu: &Gpu, chunk: usize) -> Result<GpuArena> {
        let chunk = (chunk / ALIGN * ALIGN).max(self.largest_bytes().next_multiple_of(ALIGN)).max(ALIGN);
        let lifetimes: Vec<Lifetime> = self.residents.iter().map(|(_, life)| *life).collect();
        let (of_residents, total) = place(&lifetimes, chunk);
        let mut offsets = vec![0; self.places.len()];
        for ((value, _), offset) in self.residents.iter().zip(of_residents) {
            offsets[value.index()] = offset;
        }
        let piece = |first: usize| gpu.allocate("the step's activations and gradients", (total - first).min(chunk) as u64);
        let memory = (0..total.max(1)).step_by(chunk).map(piece).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(GpuArena { memory, chunk, offsets })
    }

    /// Records every node. `leaves` are named as in the graph; they are read where they are each time the recording runs.
    ///
    /// # Errors
    /// When a leaf is missing or too small, or an operator has no kernels.
    pub fn record(&self, rec: &mut Recorder, arena: &GpuArena, leaves: &HashMap<String, View>) -> Result<()> {
        self.record_nodes(0..self.nodes.len(), rec, arena, leaves)
    }

    /// Records some of the nodes, after all that come before them.
    ///
    /// # Errors
    /// As [`Program::record`].
    pub fn record_nodes(&self, range: Range<usize>, rec: &mut Recorder, arena: &GpuArena, leaves: &HashMap<String, View>) -> Result<()> {
        for (name, &(len, dtype)) in self.leaf_names.iter().zip(&self.leaf_types) {
            let got = leaves.get(name).map(View::bytes);
            if got.is_none_or(|bytes| bytes < (len * dtype.size()) as u64) {
                let got = got.map_or("nothing".into(), |bytes| format!("{bytes} bytes"));
                return Err(Error::Binding { name: name.clone(), want: format!("{len} x {dtype:?}"), got });
            }
        }
        for node in &self.nodes[range] {
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
            Place::Arena { len, dtype, .. } => {
                let offset = arena.offsets[value.index()];
                arena.memory[offset / arena.chunk].part((offset % arena.chunk) as u64, words(len, dtype))
            }
            _ => panic!("this value is not an output of the program"),
        }
    }
}

/// Bytes of a value, in whole words: kernels see nothing smaller.
fn words(len: usize, dtype: DType) -> u64 {
    ((len * dtype.size()) as u64).next_multiple_of(4)
}
