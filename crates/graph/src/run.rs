//! The walk over a program's nodes on the CPU.

use std::ops::Range;
use std::time::{Duration, Instant};

use esvit_simd::Pool;

use crate::plan::ALIGN;
use crate::program::Storage;
use crate::{Bindings, Constants, DType, Error, Io, Leaf, Program, Result, Slice, SliceMut, Value, Variant};

/// The memory of a program's intermediate values, and after a run its outputs.
#[derive(Debug)]
pub struct Arena {
    /// Zeroed by the operating system, page by page as it is touched; with room to align the start.
    bytes: Vec<u8>,
    /// First byte that is aligned for every lane width.
    start: usize,
}

/// Time that one node took.
#[derive(Clone, Copy, Debug)]
pub struct NodeTime {
    /// Operator.
    pub op: &'static str,
    /// Part of the step.
    pub phase: &'static str,
    /// Wall time.
    pub time: Duration,
    /// Matrix-product arithmetic in it.
    pub flops: u64,
}

/// Arguments of a walk.
pub(crate) struct Run<'a, 's, 't> {
    pub constants: &'a Constants,
    pub arena: &'a mut Arena,
    pub bindings: &'a Bindings<Slice<'s>>,
    pub pool: &'a Pool,
    pub variant: Variant,
    pub times: Option<&'t mut Vec<NodeTime>>,
}

impl Program {
    /// Memory for this program. Pages are touched when they are first written.
    pub fn arena(&self) -> Arena {
        let bytes = vec![0u8; self.arena_bytes + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Arena { bytes, start }
    }

    /// Runs every node once. With `times`, notes how long each took.
    ///
    /// # Errors
    /// When a leaf has no slice or one of another length or type; then nothing was run.
    pub fn run(
        &self,
        arena: &mut Arena,
        bindings: &Bindings<Slice>,
        pool: &Pool,
        variant: Variant,
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<()> {
        self.run_nodes(0..self.nodes.len(), arena, bindings, pool, variant, times)
    }

    /// Runs some of the nodes, after all that come before them; between two parts leaves may change.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_nodes(
        &self,
        range: Range<usize>,
        arena: &mut Arena,
        bindings: &Bindings<Slice>,
        pool: &Pool,
        variant: Variant,
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<()> {
        self.walk(range, Run { constants: &Constants::default(), arena, bindings, pool, variant, times })
    }

    pub(crate) fn walk(&self, range: Range<usize>, run: Run) -> Result<()> {
        let Run { constants, arena, bindings, pool, variant, mut times } = run;
        let leaves = self.resolve(bindings, constants)?;
        assert!(arena.bytes.len() >= arena.start + self.arena_bytes, "the arena belongs to another program");
        let base = arena.bytes[arena.start..].as_mut_ptr();
        for index in range {
            let node = &self.nodes[index];
            let started = times.as_ref().map(|_| Instant::now());
            let inputs = node.inputs.iter().map(|v| match self.storage[v.index()] {
                Storage::Leaf(leaf) => leaves[leaf.index()],
                // SAFETY: `assign_offsets` gave this value `len` elements at `offset` inside the arena, aligned to 256,
                // and no value that is alive at this node overlaps it; so it is only read while this node runs,
                // and the arena is borrowed mutably for the whole call.
                Storage::Arena { offset, len, dtype } => unsafe { view(base, offset, len, dtype) },
                // SAFETY: as above.
                Storage::Bf16x2 { offset, words } => unsafe { view(base, offset, words, DType::U32) },
                Storage::Nowhere => unreachable!("an operand of a program's node is stored"),
            });
            let outputs = node.outputs.iter().map(|v| match self.storage[v.index()] {
                // SAFETY: as above; a result's life begins at this node and its operands' lives include it, so
                // the result overlaps neither them nor the node's other results.
                Storage::Arena { offset, len, dtype } => unsafe { view_mut(base, offset, len, dtype) },
                // SAFETY: as above.
                Storage::Bf16x2 { offset, words } => unsafe { view_mut(base, offset, words, DType::U32) },
                _ => unreachable!("a result of a program's node is in the arena"),
            });
            let mut io = Io {
                inputs: inputs.collect(),
                outputs: outputs.collect(),
                shapes: self.operand_shapes(node),
                pool,
                precision: self.precision,
                prepacked: constants.of(index),
            };
            match variant {
                Variant::Reference => node.op.reference(&mut io),
                Variant::Fast => node.op.fast(&mut io),
            }
            if let (Some(times), Some(started)) = (times.as_deref_mut(), started) {
                times.push(NodeTime { op: node.op.name(), phase: node.phase, time: started.elapsed(), flops: self.node_flops(node) });
            }
        }
        Ok(())
    }

    /// Slice of every leaf of the graph; empty ones for those that nobody reads.
    fn resolve<'a>(&self, bindings: &Bindings<Slice<'a>>, constants: &Constants) -> Result<Vec<Slice<'a>>> {
        let check = |(i, leaf): (usize, Leaf)| {
            let (want, slice) = (&self.leaves[i], bindings.get(leaf));
            match slice {
                _ if !want.is_read || constants.replaced.get(i) == Some(&true) => Ok(Slice::F32(&[])),
                Some(slice) if slice.len() == want.len && slice.dtype() == want.dtype => Ok(*slice),
                other => Err(Error::Binding {
                    name: want.name.clone(),
                    want: format!("{} x {:?}", want.len, want.dtype),
                    got: other.map_or("nothing".into(), |s| format!("{} x {:?}", s.len(), s.dtype())),
                }),
            }
        };
        self.leaf_handles().enumerate().map(check).collect()
    }

    /// An output after a run.
    ///
    /// # Panics
    /// When the value was not among the outputs given to [`Program::compile`] and is stored nowhere.
    pub fn output<'a>(&self, arena: &'a Arena, value: Value) -> Slice<'a> {
        match self.storage[value.index()] {
            // SAFETY: `assign_offsets` put the value inside the arena, aligned; the arena is borrowed for as long as the view.
            Storage::Arena { offset, len, dtype } => unsafe { view(arena.bytes[arena.start..].as_ptr().cast_mut(), offset, len, dtype) },
            _ => panic!("this value is not an output of the program"),
        }
    }
}

/// # Safety
/// `len` elements of `dtype` lie at `base + offset`, aligned, and nobody writes them during `'a`.
unsafe fn view<'a>(base: *mut u8, offset: usize, len: usize, dtype: DType) -> Slice<'a> {
    // SAFETY: the caller's promise; every bit pattern is a value of each of the types.
    unsafe {
        let at = base.add(offset);
        match dtype {
            DType::F32 => Slice::F32(std::slice::from_raw_parts(at.cast(), len)),
            DType::U32 => Slice::U32(std::slice::from_raw_parts(at.cast(), len)),
            DType::U8 => Slice::U8(std::slice::from_raw_parts(at, len)),
        }
    }
}

/// # Safety
/// `len` elements of `dtype` lie at `base + offset`, aligned, and nobody else reads or writes them during `'a`.
unsafe fn view_mut<'a>(base: *mut u8, offset: usize, len: usize, dtype: DType) -> SliceMut<'a> {
    // SAFETY: the caller's promise; every bit pattern is a value of each of the types.
    unsafe {
        let at = base.add(offset);
        match dtype {
            DType::F32 => SliceMut::F32(std::slice::from_raw_parts_mut(at.cast(), len)),
            DType::U32 => SliceMut::U32(std::slice::from_raw_parts_mut(at.cast(), len)),
            DType::U8 => unreachable!("no operator writes pixels"),
        }
    }
}
