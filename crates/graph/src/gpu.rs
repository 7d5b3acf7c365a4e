//! A program on a GPU: the same plan, the same order of nodes.

use std::ops::Range;

use esvit_gpu::{Gpu, Recorder, View};

use crate::plan::{ALIGN, assign_offsets};
use crate::program::Storage;
use crate::{Bindings, DType, Error, GpuIo, Program, Result, Value};

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

    /// GPU memory in pieces of `chunk` bytes, or of the largest value where that is more: for tests.
    pub fn gpu_arena_of(&self, gpu: &Gpu, chunk: usize) -> Result<GpuArena> {
        let chunk = (chunk / ALIGN * ALIGN).max(self.largest_bytes().next_multiple_of(ALIGN)).max(ALIGN);
        let (assigned, total) = assign_offsets(self.lifetimes.iter().map(|(_, life)| *life), chunk);
        let mut offsets = vec![0; self.storage.len()];
        for ((value, _), offset) in self.lifetimes.iter().zip(assigned) {
            offsets[value.index()] = offset;
        }
        let piece = |first: usize| gpu.allocate("the step's activations and gradients", (total - first).min(chunk) as u64);
        let memory = (0..total.max(1)).step_by(chunk).map(piece).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(GpuArena { memory, chunk, offsets })
    }

    /// Records every node. Leaves are read where they are each time the recording runs.
    ///
    /// # Errors
    /// When a leaf is missing or too small, or an operator has no kernels.
    pub fn record(&self, rec: &mut Recorder, arena: &GpuArena, leaves: &Bindings<View>) -> Result<()> {
        self.record_nodes(0..self.nodes.len(), rec, arena, leaves)
    }

    /// Records some of the nodes, after all that come before them.
    ///
    /// # Errors
    /// As [`Program::record`].
    pub fn record_nodes(&self, range: Range<usize>, rec: &mut Recorder, arena: &GpuArena, leaves: &Bindings<View>) -> Result<()> {
        for (handle, leaf) in self.leaf_handles().zip(&self.leaves).filter(|(_, leaf)| leaf.is_read) {
            let got = leaves.get(handle).map(View::bytes);
            if got.is_none_or(|bytes| bytes < (leaf.len * leaf.dtype.size()) as u64) {
                let got = got.map_or("nothing".into(), |bytes| format!("{bytes} bytes"));
                return Err(Error::Binding { name: leaf.name.clone(), want: format!("{} x {:?}", leaf.len, leaf.dtype), got });
            }
        }
        for node in &self.nodes[range] {
            rec.begin(node.op.name(), node.phase);
            let view = |v: &Value| match self.storage[v.index()] {
                Storage::Leaf(handle) => {
                    let leaf = &self.leaves[handle.index()];
                    leaves.get(handle).expect("checked above").part(0, whole_words(leaf.len, leaf.dtype))
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

    /// Place of an output in GPU memory after a run.
    ///
    /// # Panics
    /// When the value is stored nowhere or is a leaf.
    pub fn gpu_output(&self, arena: &GpuArena, value: Value) -> View {
        match self.storage[value.index()] {
            Storage::Arena { len, dtype, .. } => {
                let offset = arena.offsets[value.index()];
                arena.memory[offset / arena.chunk].part((offset % arena.chunk) as u64, whole_words(len, dtype))
            }
            _ => panic!("this value is not an output of the program"),
        }
    }
}

/// Bytes of a value, in whole words: kernels see nothing smaller.
fn whole_words(len: usize, dtype: DType) -> u64 {
    ((len * dtype.size()) as u64).next_multiple_of(4)
}
