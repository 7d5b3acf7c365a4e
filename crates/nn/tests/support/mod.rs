//! What the golden tests of networks share: a graph whose leaves are filled by name.

// Each test binary uses its part.
#![allow(dead_code)]

use std::collections::HashMap;

use esvit_graph::{Arena, Bindings, DType, Graph, Program, Slice, Value, Variant};
use esvit_nn::spec::{BackboneSpec, SwinSpec};
use esvit_nn::{Entry, Parameters, Role, leaf_name};
use esvit_simd::Pool;
use serde_json::Value as Json;

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Our specification of a fixture's `model`; `None` for families that are not there yet.
pub fn backbone_spec(model: &Json) -> Option<BackboneSpec> {
    if model["family"] != "swin" {
        return None;
    }
    let spec = &model["SPEC"];
    let list = |key: &str| spec[key].as_array().map(|a| a.iter().filter_map(Json::as_u64).map(|v| v as usize).collect());
    Some(BackboneSpec::Swin(SwinSpec {
        image_size: model["IMAGE_SIZE"][0].as_u64()? as usize,
        patch_size: spec["PATCH_SIZE"].as_u64()? as usize,
        dim: spec["DIM_EMBED"].as_u64()? as usize,
        depths: list("DEPTHS")?,
        heads: list("NUM_HEADS")?,
        window: spec["WINDOW_SIZE"].as_u64()? as usize,
        mlp_ratio: spec["MLP_RATIO"].as_f64()?,
        qkv_bias: spec["QKV_BIAS"].as_bool()?,
        absolute_position: spec["USE_APE"].as_bool()?,
        patch_norm: spec["PATCH_NORM"].as_bool()?,
        drop_path: spec["DROP_PATH_RATE"].as_f64()?,
    }))
}

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
    pub fn fill(&mut self, network: &str, parameters: &Parameters, values: impl Fn(&Entry) -> Vec<f32>) {
        for entry in &parameters.entries {
            if !matches!(entry.role, Role::Constant(_)) {
                self.set(leaf_name(network, &entry.name), values(entry));
            }
        }
    }
}

/// A program that ran, and its outputs by name.
pub struct Ran {
    program: Program,
    arena: Arena,
    names: HashMap<String, Value>,
}

impl Ran {
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.names.get(name).map(|v| self.program.output(&self.arena, *v).f32())
    }

    pub fn indices(&self, name: &str) -> Option<&[u32]> {
        self.names.get(name).map(|v| self.program.output(&self.arena, *v).u32())
    }
}

/// Compiles, runs, and keeps the named outputs.
pub fn run(graph: &Graph, outputs: Vec<(String, Value)>, feed: &Feed) -> Result<Ran, Box<dyn std::error::Error>> {
    let values: Vec<Value> = outputs.iter().map(|(_, v)| *v).collect();
    let program = Program::compile(graph, &values);
    let mut arena = program.arena();
    let mut bindings = Bindings::new();
    for (name, values) in &feed.floats {
        bindings.bind(name, Slice::F32(values));
    }
    for (name, values) in &feed.indices {
        bindings.bind(name, Slice::U32(values));
    }
    let pool = Pool::new(2)?;
    pool.install(|| program.run(&mut arena, &bindings, &pool, Variant::Fast, None))?;
    Ok(Ran { program, arena, names: outputs.into_iter().collect() })
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
