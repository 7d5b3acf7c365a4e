//! The forward pass on the CPU.

use std::borrow::Cow;

use esvit_graph::{Arena, Bindings, Constants, Leaf, LeafSource, NodeTime, Slice};
use esvit_simd::Pool;

use super::executor::ForwardExecutor;
use crate::forward::CompiledForward;
use crate::{Result, Store};

/// Compute threads, memory of the program, and prepacked weights.
#[derive(Debug)]
pub(super) struct CpuForward {
    pool: Pool,
    arena: Arena,
    constants: Constants,
}

impl CpuForward {
    pub fn new(threads: usize, forward: &CompiledForward) -> Result<CpuForward> {
        Ok(CpuForward { pool: Pool::new(threads)?, arena: forward.program.arena(), constants: Constants::default() })
    }
}

impl ForwardExecutor for CpuForward {
    fn take_weights(&mut self, forward: &CompiledForward, store: &mut Store) {
        let mut weights = StoredWeights { store, leaves: &forward.weights };
        self.constants = self.pool.install(|| forward.program.prepack(&mut weights));
    }

    fn release_weights(&mut self) {
        self.constants = Constants::default();
    }

    fn weight_bytes(&self) -> usize {
        self.constants.bytes()
    }

    fn run(
        &mut self,
        forward: &CompiledForward,
        store: &Store,
        pixels: &[u8],
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<Vec<Cow<'_, [f32]>>> {
        let program = &forward.program;
        let mut bindings = Bindings::new();
        for (i, leaf) in forward.weights.iter().enumerate() {
            if let Some(leaf) = *leaf {
                bindings.bind(leaf, Slice::F32(store.values(i)));
            }
        }
        if let Some(leaf) = forward.pixels {
            bindings.bind(leaf, Slice::U8(pixels));
        }
        let CpuForward { pool, arena, constants } = self;
        let pool = &*pool;
        pool.install(|| program.run_prepacked(constants, arena, &bindings, pool, times))?;
        let arena = &*arena;
        Ok(forward.outputs.iter().map(|value| Cow::Borrowed(program.output(arena, *value).f32())).collect())
    }
}

/// Weights of a store while they are prepacked: those that are no longer read are freed. Until all are loaded again its state dict is not
/// complete.
struct StoredWeights<'a> {
    store: &'a mut Store,
    /// Leaf of each entry.
    leaves: &'a [Option<Leaf>],
}

impl StoredWeights<'_> {
    fn entry(&self, leaf: Leaf) -> Option<usize> {
        self.leaves.iter().position(|l| *l == Some(leaf))
    }
}

impl LeafSource for StoredWeights<'_> {
    fn slice(&self, leaf: Leaf) -> Option<Slice<'_>> {
        self.entry(leaf).map(|i| Slice::F32(self.store.values(i)))
    }

    fn release(&mut self, leaf: Leaf) {
        if let Some(i) = self.entry(leaf) {
            *self.store.values_mut(i) = Vec::new();
        }
    }
}
