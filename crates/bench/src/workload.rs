//! A small program with values for its leaves, ready to run on a machine.

use std::collections::HashMap;
use std::time::Instant;

use esvit_engine::Result;
use esvit_engine::device::Gpu;
use esvit_gpu::{Recorder, Recording, View};
use esvit_graph::{Arena, Bindings, DType, GpuArena, Graph, Node, Precision, Program, Shape, Slice, Value, Variant, volume};
use esvit_ops::Input;
use esvit_simd::Pool;

use crate::Machine;

/// Values of a leaf.
pub(crate) enum Data {
    F32(Vec<f32>),
    U32(Vec<u32>),
    U8(Vec<u8>),
}

impl Data {
    /// Values for a leaf about which nothing is known: small waves, so that no result leaves the range that training has; positive
    /// vectors, since they may be variances, weights or temperatures; indices 0.
    pub fn plain(number: usize, shape: &[usize], dtype: DType) -> Data {
        let shape: Shape = shape.to_vec();
        match dtype {
            DType::F32 if shape.len() < 2 => Data::F32(Input::Positive(shape).floats(number)),
            DType::F32 => Data::F32(Input::Wave(shape).floats(number).iter().map(|v| 0.1 * v).collect()),
            DType::U32 => Data::U32(vec![0; volume(&shape)]),
            DType::U8 => Data::U8(Input::Pixels(shape).pixels(number)),
        }
    }

    /// Values of the same range and signs as [`Data::plain`], made faster than they are used.
    pub fn rough(shape: &[usize], dtype: DType) -> Data {
        const PATTERN: [f32; 16] = [0.11, -0.07, 0.03, -0.12, 0.05, 0.09, -0.02, -0.1, 0.08, -0.04, 0.12, -0.09, 0.01, -0.06, 0.1, -0.11];
        let n = volume(shape);
        match dtype {
            DType::F32 if shape.len() < 2 || shape[1] == 1 => Data::F32(vec![1.0; n]),
            DType::F32 => {
                let mut values = vec![0.0; n];
                values.chunks_mut(PATTERN.len()).for_each(|chunk| chunk.copy_from_slice(&PATTERN[..chunk.len()]));
                Data::F32(values)
            }
            DType::U32 => Data::U32(vec![0; n]),
            DType::U8 => Data::U8(vec![100; n]),
        }
    }

    fn slice(&self) -> Slice<'_> {
        match self {
            Data::F32(v) => Slice::F32(v),
            Data::U32(v) => Slice::U32(v),
            Data::U8(v) => Slice::U8(v),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::U32(v) => bytemuck::cast_slice(v),
            Data::U8(v) => v,
        }
    }
}

/// Indices among a node's operands, by the number of the operand, as the nodes that write them compute them from made-up values: positions in a
/// window or rows of a matrix are not arbitrary numbers.
pub(crate) fn indices(program: &Program, node: &Node, pool: &Pool) -> Result<HashMap<usize, Vec<u32>>> {
    let mut found = HashMap::new();
    for (i, ((_, dtype), value)) in program.operands(node).into_iter().zip(&node.inputs).enumerate() {
        let Some(giver) = program.nodes().iter().find(|n| dtype == DType::U32 && n.outputs.contains(value)) else { continue };
        let mut g = Graph::new();
        let (mut leaves, mut operands) = (Vec::new(), Vec::new());
        for (number, (shape, dtype)) in program.operands(giver).into_iter().enumerate() {
            leaves.push((format!("operand {number}"), Data::rough(shape, dtype)));
            operands.push(g.leaf(&leaves[number].0, shape, dtype)?);
        }
        let results = g.apply_shared(giver.op.clone(), &operands)?;
        let wanted = results[giver.outputs.iter().position(|output| output == value).unwrap_or(0)];
        let alone = Program::compile(&g, &[wanted]);
        let bindings = alone.bind(leaves.iter().map(|(name, data)| (name, data.slice())));
        let mut arena = alone.arena();
        pool.install(|| alone.run(&mut arena, &bindings, pool, Variant::Fast, None))?;
        found.insert(i, alone.output(&arena, wanted).u32().to_vec());
    }
    Ok(found)
}

/// A program and its leaves.
pub(crate) struct Workload {
    program: Program,
    leaves: Vec<(String, Data)>,
}

impl Workload {
    /// The nodes of `graph` that lead to `outputs`. `fill` gives a leaf its values by name, number, shape and type.
    pub fn new(graph: &Graph, outputs: &[Value], precision: Precision, fill: impl Fn(&str, usize, &[usize], DType) -> Data) -> Workload {
        let program = Program::compile(graph, outputs).with_precision(precision);
        let shapes: HashMap<&str, &Shape> = graph.leaves().iter().map(|leaf| (leaf.name.as_str(), graph.shape(leaf.value))).collect();
        let leaves = program.leaves().enumerate().map(|(i, (name, _, dtype))| (name.to_string(), fill(name, i, shapes[name], dtype)));
        let leaves = leaves.collect();
        Workload { program, leaves }
    }

    /// Stores values that matrix products alone read as bf16x2 in mixed precision, where this machine's processor multiplies those.
    #[must_use]
    pub fn with_bf16x2_on(self, machine: &Machine) -> Workload {
        match machine.gpu() {
            None => Workload { program: self.program.with_bf16x2(), ..self },
            Some(_) => self,
        }
    }

    /// Bytes of results in between and at the end, and of scratch memory with so many threads.
    pub fn planned_bytes(&self, threads: usize) -> u64 {
        (self.program.arena_bytes() + self.program.scratch_bytes(threads)) as u64
    }

    /// Binds it to a machine's memory.
    pub fn on<'m>(self, machine: &'m Machine) -> Result<Ready<'m>> {
        let placed = match machine.gpu() {
            None => Placed::Cpu(self.program.arena()),
            Some(gpu) => {
                let upload = |(name, data): &(String, Data)| -> Result<(String, View)> {
                    let view = gpu.allocate("a bench's operand", data.bytes().len() as u64)?;
                    gpu.upload(&view, data.bytes());
                    Ok((name.clone(), view))
                };
                let leaves = self.program.bind(self.leaves.iter().map(upload).collect::<Result<Vec<_>>>()?);
                let arena = self.program.gpu_arena(gpu)?;
                Placed::Gpu { gpu, leaves, arena, recorded: None }
            }
        };
        Ok(Ready { workload: self, machine, placed })
    }
}

enum Placed<'m> {
    Cpu(Arena),
    Gpu {
        gpu: &'m Gpu,
        leaves: Bindings<View>,
        arena: GpuArena,
        /// Repeats in one submission, and their recording.
        recorded: Option<(usize, Recording)>,
    },
}

/// A workload that can run.
pub(crate) struct Ready<'m> {
    workload: Workload,
    machine: &'m Machine,
    placed: Placed<'m>,
}

impl Ready<'_> {
    /// Runs the program `repeats` times in a row and gives the time of one, in milliseconds. On a GPU all of them are one submission, which is
    /// waited for.
    pub fn run(&mut self, repeats: usize) -> Result<f64> {
        let Workload { program, leaves } = &self.workload;
        let started;
        match &mut self.placed {
            Placed::Cpu(arena) => {
                let pool = self.machine.pool();
                let bindings = program.bind(leaves.iter().map(|(name, data)| (name, data.slice())));
                started = Instant::now();
                pool.install(|| (0..repeats).try_for_each(|_| program.run(arena, &bindings, pool, Variant::Fast, None)))?;
            }
            Placed::Gpu { gpu, leaves, arena, recorded } => {
                if recorded.as_ref().is_none_or(|(n, _)| *n != repeats) {
                    let mut rec = Recorder::new(gpu);
                    for _ in 0..repeats {
                        program.record(&mut rec, arena, leaves)?;
                    }
                    *recorded = Some((repeats, rec.finish()?));
                }
                let Some((_, recording)) = recorded else { unreachable!("recorded above") };
                gpu.wait()?;
                started = Instant::now();
                recording.run(gpu)?;
                gpu.wait()?;
            }
        }
        Ok(started.elapsed().as_secs_f64() * 1e3 / repeats as f64)
    }
}
