//! A compiled program: the nodes that matter, their place in the arena, and the walk over them.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use esvit_simd::Pool;

use crate::plan::{ALIGN, Lifetime, NO_CHUNKS, place};
use crate::{Constants, DType, Error, Graph, Io, Node, Precision, Result, Shape, Slice, SliceMut, Value, Variant, volume};

/// A graph that was planned: run it as often as you like.
#[derive(Debug)]
pub struct Program {
    pub(crate) nodes: Vec<Node>,
    /// For every value of the graph.
    pub(crate) places: Vec<Place>,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) leaf_names: Vec<String>,
    leaf_index: HashMap<String, usize>,
    pub(crate) leaf_types: Vec<(usize, DType)>,
    stops: Vec<Stop>,
    pub(crate) arena_bytes: usize,
    /// What lives in the arena, and when.
    pub(crate) residents: Vec<(Value, Lifetime)>,
    /// Results that are read from outside.
    pub(crate) wanted: Vec<Value>,
    pub(crate) precision: Precision,
}

/// A result that is used up during the run, and the leaves that change when it is.
#[derive(Clone, Debug)]
pub struct Consumed {
    /// A gradient.
    pub value: Value,
    /// Its parameter, and the teacher's.
    pub leaves: Vec<Value>,
}

/// A place between two nodes where some results are complete, and the leaves that belong to them are read no more.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Number of nodes that have run.
    pub after: usize,
    /// Which of the consumed results.
    pub ready: Vec<usize>,
}

/// Bytes of consumed results that wait for each other: a stop costs a look-up of every leaf.
const STOP_BYTES: usize = 4 << 20;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Slice number `.0` of the bindings.
    Leaf(usize),
    /// Byte offset in the arena.
    Arena { offset: usize, len: usize, dtype: DType },
    /// Words of two bf16 at a byte offset in the arena.
    Bf16x2 { offset: usize, words: usize },
    /// Dropped: nothing needs it.
    Nowhere,
}

/// The memory of a program's intermediate values, and after a run its outputs.
#[derive(Debug)]
pub struct Arena {
    /// Zeroed by the operating system, page by page as it is touched; with room to align the start.
    bytes: Vec<u8>,
    /// First byte that is aligned for every lane width.
    start: usize,
}

/// Slices for a program's leaves, by name.
#[derive(Default)]
pub struct Bindings<'a> {
    pub(crate) slices: Vec<(&'a str, Slice<'a>)>,
}

impl<'a> Bindings<'a> {
    /// No slices yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a leaf its slice; names a program does not use are ignored.
    pub fn bind(&mut self, name: &'a str, slice: Slice<'a>) -> &mut Self {
        self.slices.push((name, slice));
        self
    }
}

/// How long one node took.
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

impl Program {
    /// Keeps the nodes that lead to `outputs`, and plans the arena. Outputs stay valid after a run.
    pub fn compile(graph: &Graph, outputs: &[Value]) -> Program {
        Program::compile_with_stops(graph, outputs, &[], &[])
    }

    /// The same, but the results in `consumed` are valid at their [stop](Program::stops) only, which lies behind the nodes that give
    /// `first`: their memory is free from there on.
    pub fn compile_with_stops(graph: &Graph, outputs: &[Value], consumed: &[Consumed], first: &[Value]) -> Program {
        let mut needed = vec![false; graph.values.len()];
        for output in outputs.iter().chain(consumed.iter().map(|c| &c.value)).chain(first) {
            needed[output.index()] = true;
        }
        let mut keep = vec![false; graph.nodes.len()];
        for (index, node) in graph.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|v| needed[v.index()]) {
                keep[index] = true;
                for input in &node.inputs {
                    needed[input.index()] = true;
                }
            }
        }
        let nodes: Vec<Node> = graph.nodes.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(node, _)| node.clone()).collect();

        // Lifetimes of everything the kept nodes write (also results nobody reads: they are written to).
        let mut values = Vec::new();
        let mut lifetimes: Vec<Lifetime> = Vec::new();
        let mut slot_of = vec![usize::MAX; graph.values.len()];
        for (time, node) in nodes.iter().enumerate() {
            for output in &node.outputs {
                let info = &graph.values[output.index()];
                slot_of[output.index()] = lifetimes.len();
                values.push(*output);
                lifetimes.push(Lifetime { first: time, last: time, bytes: volume(&info.shape) * info.dtype.size() });
            }
            for input in &node.inputs {
                let slot = slot_of[input.index()];
                if slot != usize::MAX {
                    lifetimes[slot].last = time;
                }
            }
        }
        for output in outputs {
            let slot = slot_of[output.index()];
            if slot != usize::MAX {
                lifetimes[slot].last = nodes.len();
            }
        }
        let stops = stops(&nodes, consumed, first, |value| lifetimes.get(slot_of[value.index()]).map_or(0, |life| life.bytes));
        for stop in &stops {
            for &ready in &stop.ready {
                if let Some(life) = lifetimes.get_mut(slot_of[consumed[ready].value.index()]) {
                    life.last = life.last.max(stop.after - 1);
                }
            }
        }
        let (offsets, arena_bytes) = place(&lifetimes, NO_CHUNKS);

        let mut places = vec![Place::Nowhere; graph.values.len()];
        for (slot, value) in values.iter().enumerate() {
            let info = &graph.values[value.index()];
            places[value.index()] = Place::Arena { offset: offsets[slot], len: volume(&info.shape), dtype: info.dtype };
        }
        let (mut leaf_names, mut leaf_types) = (Vec::new(), Vec::new());
        for leaf in &graph.leaves {
            if needed[leaf.value.index()] {
                let info = &graph.values[leaf.value.index()];
                places[leaf.value.index()] = Place::Leaf(leaf_names.len());
                leaf_names.push(leaf.name.clone());
                leaf_types.push((volume(&info.shape), info.dtype));
            }
        }
        let wanted = outputs.iter().chain(consumed.iter().map(|c| &c.value)).copied().collect();
        let residents = values.into_iter().zip(lifetimes).collect();
        let leaf_index = leaf_names.iter().enumerate().map(|(i, name)| (name.clone(), i)).collect();
        let shapes = graph.values.iter().map(|info| info.shape.clone()).collect();
        Program {
            nodes,
            places,
            shapes,
            leaf_names,
            leaf_index,
            leaf_types,
            stops,
            arena_bytes,
            residents,
            wanted,
            precision: Precision::F32,
        }
    }

    /// The same program with its matrix products rounded like this.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Program {
        Program { precision, ..self }
    }

    /// Where results are consumed, in running order.
    pub fn stops(&self) -> &[Stop] {
        &self.stops
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Bytes of the largest value in the arena: a piece of memory must hold it.
    pub fn largest_bytes(&self) -> usize {
        self.residents.iter().map(|(_, life)| life.bytes).max().unwrap_or(0)
    }

    /// Bytes of scratch memory the largest of the nodes takes, with so many threads.
    pub fn scratch_bytes(&self, threads: usize) -> usize {
        self.nodes.iter().map(|node| node.op.scratch(&self.operand_shapes(node), threads)).max().unwrap_or(0)
    }

    pub(crate) fn operand_shapes(&self, node: &Node) -> Vec<&Shape> {
        node.inputs.iter().map(|v| &self.shapes[v.index()]).collect()
    }

    /// Memory for this program. Pages are touched when they are first written.
    pub fn arena(&self) -> Arena {
        let bytes = vec![0u8; self.arena_bytes + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Arena { bytes, start }
    }

    /// Shapes and types of a node's operands.
    pub fn operands(&self, node: &Node) -> Vec<(&Shape, DType)> {
        let dtype = |v: &Value| match self.places[v.index()] {
            Place::Leaf(i) => self.leaf_types[i].1,
            Place::Arena { dtype, .. } => dtype,
            Place::Bf16x2 { .. } => DType::F32,
            Place::Nowhere => unreachable!("an operand of a kept node has a place"),
        };
        node.inputs.iter().map(|v| (&self.shapes[v.index()], dtype(v))).collect()
    }

    /// Nodes, in running order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Matrix-product arithmetic of one run.
    pub fn flops(&self) -> u64 {
        self.nodes.iter().map(|node| self.node_flops(node)).sum()
    }

    /// The same of each node, in running order.
    pub fn flops_of_nodes(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| self.node_flops(node)).collect()
    }

    /// Names, numbers of elements and types of the leaves it reads.
    pub fn leaves(&self) -> impl Iterator<Item = (&str, usize, DType)> {
        self.leaf_names.iter().zip(&self.leaf_types).map(|(name, &(len, dtype))| (name.as_str(), len, dtype))
    }

    fn node_flops(&self, node: &Node) -> u64 {
        node.op.flops(&self.operand_shapes(node))
    }

    /// Runs every node once. With `times`, notes how long each took.
    ///
    /// # Errors
    /// When a leaf has no slice or one of another length or type; then nothing was run.
    pub fn run(
        &self,
        arena: &mut Arena,
        bindings: &Bindings,
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
        bindings: &Bindings,
        pool: &Pool,
        variant: Variant,
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<()> {
        self.walk(range, &Constants::default(), arena, bindings, pool, variant, times)
    }

    pub(crate) fn walk(
        &self,
        range: Range<usize>,
        constants: &Constants,
        arena: &mut Arena,
        bindings: &Bindings,
        pool: &Pool,
        variant: Variant,
        mut times: Option<&mut Vec<NodeTime>>,
    ) -> Result<()> {
        let leaves = self.resolve(bindings, constants)?;
        assert!(arena.bytes.len() >= arena.start + self.arena_bytes, "the arena belongs to another program");
        let base = arena.bytes[arena.start..].as_mut_ptr();
        for index in range {
            let node = &self.nodes[index];
            let started = times.as_ref().map(|_| Instant::now());
            let inputs = node.inputs.iter().map(|v| match self.places[v.index()] {
                Place::Leaf(i) => leaves[i],
                // SAFETY: `place` gave this value `len` elements at `offset` inside the arena, aligned to 256,
                // and no value that is alive at this node overlaps it; so it is only read while this node runs,
                // and the arena is borrowed mutably for the whole call.
                Place::Arena { offset, len, dtype } => unsafe { view(base, offset, len, dtype) },
                // SAFETY: as above.
                Place::Bf16x2 { offset, words } => unsafe { view(base, offset, words, DType::U32) },
                Place::Nowhere => unreachable!("an operand of a kept node has a place"),
            });
            let outputs = node.outputs.iter().map(|v| match self.places[v.index()] {
                // SAFETY: as above; a result's life begins at this node and its operands' lives include it, so
                // the result overlaps neither them nor the node's other results.
                Place::Arena { offset, len, dtype } => unsafe { view_mut(base, offset, len, dtype) },
                // SAFETY: as above.
                Place::Bf16x2 { offset, words } => unsafe { view_mut(base, offset, words, DType::U32) },
                _ => unreachable!("a result of a kept node lives in the arena"),
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

    /// The slice of each leaf.
    fn find<'a>(&self, bindings: &Bindings<'a>) -> Vec<Option<Slice<'a>>> {
        let mut leaves: Vec<Option<Slice<'a>>> = vec![None; self.leaf_names.len()];
        for (name, slice) in &bindings.slices {
            if let Some(&i) = self.leaf_index.get(*name) {
                leaves[i] = Some(*slice);
            }
        }
        leaves
    }

    fn resolve<'a>(&self, bindings: &Bindings<'a>, constants: &Constants) -> Result<Vec<Slice<'a>>> {
        let check = |(i, slice): (usize, Option<Slice<'a>>)| {
            let (len, dtype) = self.leaf_types[i];
            match slice {
                _ if constants.replaced.get(i) == Some(&true) => Ok(Slice::F32(&[])),
                Some(slice) if slice.len() == len && slice.dtype() == dtype => Ok(slice),
                other => Err(Error::Binding {
                    name: self.leaf_names[i].clone(),
                    want: format!("{len} x {dtype:?}"),
                    got: other.map_or("nothing".into(), |s| format!("{} x {:?}", s.len(), s.dtype())),
                }),
            }
        };
        self.find(bindings).into_iter().enumerate().map(check).collect()
    }

    /// An output after a run.
    ///
    /// # Panics
    /// When the value was not among the outputs given to [`Program::compile`] and lives nowhere.
    pub fn output<'a>(&self, arena: &'a Arena, value: Value) -> Slice<'a> {
        match self.places[value.index()] {
            // SAFETY: `place` put the value inside the arena, aligned; the arena is borrowed for as long as the view.
            Place::Arena { offset, len, dtype } => unsafe { view(arena.bytes[arena.start..].as_ptr().cast_mut(), offset, len, dtype) },
            _ => panic!("this value is not an output of the program"),
        }
    }
}

/// A result is complete behind the node that gives it, behind the last one that reads its leaves, and behind those that give `first`.
/// Neighbors wait for each other until they are worth a stop.
fn stops(nodes: &[Node], consumed: &[Consumed], first: &[Value], bytes: impl Fn(Value) -> usize) -> Vec<Stop> {
    let (mut given, mut read) = (HashMap::new(), HashMap::new());
    for (time, node) in nodes.iter().enumerate() {
        given.extend(node.outputs.iter().map(|v| (*v, time)));
        read.extend(node.inputs.iter().map(|v| (*v, time)));
    }
    let time = |times: &HashMap<Value, usize>, value: &Value| times.get(value).map_or(0, |t| t + 1);
    let earliest = first.iter().map(|v| time(&given, v)).max().unwrap_or(0);
    let complete = |c: &Consumed| c.leaves.iter().map(|leaf| time(&read, leaf)).fold(earliest.max(time(&given, &c.value)), usize::max);
    let mut order: Vec<(usize, usize)> = consumed.iter().enumerate().map(|(i, c)| (complete(c), i)).collect();
    order.sort_unstable();
    let mut stops: Vec<Stop> = Vec::new();
    let mut waiting = usize::MAX;
    for (after, i) in order {
        let same = stops.last().is_some_and(|stop| stop.after == after);
        match stops.last_mut() {
            Some(stop) if same || waiting < STOP_BYTES => {
                stop.after = after;
                stop.ready.push(i);
            }
            _ => {
                waiting = 0;
                stops.push(Stop { after, ready: vec![i] });
            }
        }
        waiting += bytes(consumed[i].value);
    }
    stops
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
