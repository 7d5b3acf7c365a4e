//! Shared by the golden tests of networks: a graph whose leaves are filled by name.

// Each test binary uses its part.
#![allow(dead_code)]
// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

pub mod families;

use std::collections::HashMap;

use esvit_gpu::{Gpu, Recorder};
use esvit_graph::{Arena, DType, Graph, Program, Slice, Value, Variant};
use esvit_nn::{ParameterEntry, Parameters, Role, leaf_name};
use esvit_simd::Pool;

pub use esvit_testkit::Outcome;

/// Values for the leaves of a graph.
#[derive(Default)]
pub struct Feed {
    floats: Vec<(String, Vec<f32>)>,
    indices: Vec<(String, Vec<u32>)>,
}

impl Feed {
    pub fn set(&mut self, name: impl Into<String>, values: Vec<f32>) {
        self.floats.push((name.into(), values));
    }

    pub fn set_indices(&mut self, name: impl Into<String>, values: Vec<u32>) {
        self.indices.push((name.into(), values));
    }

    /// Fills every float entry of a network.
    pub fn fill(&mut self, network: &str, parameters: &Parameters, values: impl Fn(&ParameterEntry) -> Vec<f32>) {
        for entry in &parameters.entries {
            if entry.role.has_values() {
                self.set(leaf_name(network, &entry.name), values(entry));
            }
        }
    }
}

/// Where a graph runs.
pub enum TestDevice {
    Cpu,
    Gpu(Gpu),
}

/// A program that ran, and its outputs by name.
pub struct Ran {
    outputs: HashMap<String, Output>,
}

enum Output {
    Floats(Vec<f32>),
    Indices(Vec<u32>),
}

impl Ran {
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        match self.outputs.get(name)? {
            Output::Floats(values) => Some(values),
            Output::Indices(_) => None,
        }
    }

    pub fn indices(&self, name: &str) -> Option<&[u32]> {
        match self.outputs.get(name)? {
            Output::Indices(values) => Some(values),
            Output::Floats(_) => None,
        }
    }
}

/// Compiles, runs on the CPU, and keeps the named outputs.
pub fn run(graph: &Graph, outputs: Vec<(String, Value)>, feed: &Feed) -> Result<Ran, Box<dyn std::error::Error>> {
    run_on(&TestDevice::Cpu, graph, outputs, feed)
}

/// Compiles, runs, and keeps the named outputs.
pub fn run_on(device: &TestDevice, graph: &Graph, outputs: Vec<(String, Value)>, feed: &Feed) -> Result<Ran, Box<dyn std::error::Error>> {
    let values: Vec<Value> = outputs.iter().map(|(_, v)| *v).collect();
    let program = Program::compile(graph, &values);
    let mut kept = HashMap::new();
    match device {
        TestDevice::Cpu => {
            let mut arena: Arena = program.arena();
            let floats = feed.floats.iter().map(|(name, values)| (name, Slice::F32(values)));
            let indices = feed.indices.iter().map(|(name, values)| (name, Slice::U32(values)));
            let bindings = program.bind(floats.chain(indices));
            let pool = Pool::new(2)?;
            pool.install(|| program.run(&mut arena, &bindings, &pool, Variant::Fast, None))?;
            for (name, value) in outputs {
                kept.insert(
                    name,
                    match program.output(&arena, value) {
                        Slice::U32(values) => Output::Indices(values.to_vec()),
                        values => Output::Floats(values.f32().to_vec()),
                    },
                );
            }
        }
        TestDevice::Gpu(gpu) => {
            let upload = |bytes: &[u8]| -> Result<_, Box<dyn std::error::Error>> {
                let view = gpu.allocate("a leaf", bytes.len() as u64)?;
                gpu.upload(&view, bytes);
                Ok(view)
            };
            let mut views = Vec::new();
            for (name, values) in &feed.floats {
                views.push((name, upload(bytemuck::cast_slice(values))?));
            }
            for (name, values) in &feed.indices {
                views.push((name, upload(bytemuck::cast_slice(values))?));
            }
            let leaves = program.bind(views);
            let arena = program.gpu_arena(gpu)?;
            let mut rec = Recorder::new(gpu);
            program.record(&mut rec, &arena, &leaves)?;
            rec.finish()?.run(gpu)?;
            for (name, value) in outputs {
                kept.insert(name, Output::Floats(gpu.read_f32(&program.gpu_output(&arena, value))?));
            }
        }
    }
    Ok(Ran { outputs: kept })
}

/// The best adapter, or none after saying so. With `REQUIRE_GPU=1` its absence is a failure.
pub fn open_or_skip() -> Result<Option<Gpu>, Box<dyn std::error::Error>> {
    match Gpu::open() {
        Ok(gpu) => Ok(Some(gpu)),
        Err(error) if std::env::var("REQUIRE_GPU").as_deref() == Ok("1") => Err(error.into()),
        Err(error) => {
            eprintln!("skipped: {error}");
            Ok(None)
        }
    }
}

/// Leaves and names of a network's trained parameters.
pub fn trained(graph: &mut Graph, network: &str, parameters: &Parameters) -> Vec<(String, Value)> {
    let chosen = parameters.entries.iter().filter(|e| e.role == Role::Parameter);
    chosen
        .filter_map(|e| {
            let name = leaf_name(network, &e.name);
            let leaf = graph.leaves().iter().find(|leaf| leaf.name == name)?;
            Some((e.name.clone(), leaf.value))
        })
        .collect()
}

/// A float leaf.
pub fn leaf(graph: &mut Graph, name: &str, shape: &[usize]) -> Value {
    graph.leaf(name, shape, DType::F32).expect("a fresh leaf")
}
