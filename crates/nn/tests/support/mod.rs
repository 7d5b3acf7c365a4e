//! What the golden tests of networks share: a graph whose leaves are filled by name.

// Each test binary uses its part.
#![allow(dead_code)]

use std::collections::HashMap;

use esvit_graph::{Arena, Bindings, DType, Graph, Program, Slice, Value, Variant};
use esvit_nn::spec::{BackboneSpec, CvtSpec, ResnetSpec, SwinSpec};
use esvit_nn::{Entry, Parameters, Role, leaf_name};
use esvit_simd::Pool;
use serde_json::Value as Json;

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Our specification of a fixture's `model`; `None` for families that are not there yet.
pub fn backbone_spec(model: &Json) -> Option<BackboneSpec> {
    match model["family"].as_str()? {
        "swin" => swin(model).map(BackboneSpec::Swin),
        "cvt" => cvt(&model["SPEC"]).map(BackboneSpec::Cvt),
        "resnet" => resnet(model).map(BackboneSpec::Resnet),
        _ => None,
    }
}

fn numbers(json: &Json) -> Option<Vec<usize>> {
    json.as_array().map(|a| a.iter().filter_map(Json::as_u64).map(|v| v as usize).collect())
}

fn swin(model: &Json) -> Option<SwinSpec> {
    let spec = &model["SPEC"];
    Some(SwinSpec {
        image_size: model["IMAGE_SIZE"][0].as_u64()? as usize,
        patch_size: spec["PATCH_SIZE"].as_u64()? as usize,
        dim: spec["DIM_EMBED"].as_u64()? as usize,
        depths: numbers(&spec["DEPTHS"])?,
        heads: numbers(&spec["NUM_HEADS"])?,
        window: spec["WINDOW_SIZE"].as_u64()? as usize,
        mlp_ratio: spec["MLP_RATIO"].as_f64()?,
        qkv_bias: spec["QKV_BIAS"].as_bool()?,
        absolute_position: spec["USE_APE"].as_bool()?,
        patch_norm: spec["PATCH_NORM"].as_bool()?,
        drop_path: spec["DROP_PATH_RATE"].as_f64()?,
    })
}

fn cvt(spec: &Json) -> Option<CvtSpec> {
    let flags = |json: &Json| json.as_array().map(|a| a.iter().filter_map(Json::as_bool).collect());
    Some(CvtSpec {
        dims: numbers(&spec["DIM_EMBED"])?,
        depths: numbers(&spec["DEPTH"])?,
        heads: numbers(&spec["NUM_HEADS"])?,
        windows: numbers(&spec["WINDOW_SIZE"])?,
        embed_kernels: numbers(&spec["PATCH_SIZE"])?,
        embed_strides: numbers(&spec["PATCH_STRIDE"])?,
        embed_paddings: numbers(&spec["PATCH_PADDING"])?,
        qkv_kernels: numbers(&spec["KERNEL_QKV"])?,
        qkv_bias: flags(&spec["QKV_BIAS"])?,
        mlp_ratios: spec["MLP_RATIO"].as_array()?.iter().filter_map(Json::as_f64).collect(),
        shift: flags(&spec["SHIFT"])?,
        relative_position: spec["REL_POS_EMBED"].as_bool()?,
        residual_stem: spec["RES_STEM"].as_bool().unwrap_or(false),
        drop_path: spec["DROP_PATH_RATE"].as_f64()?,
    })
}

/// A torchvision name, or the layers and width of its `ResNet` of bottlenecks.
fn resnet(model: &Json) -> Option<ResnetSpec> {
    let depths = match model["arch"].as_str() {
        Some("resnet50") => vec![3, 4, 6, 3],
        Some(_) => return None,
        None => numbers(&model["kwargs"]["layers"])?,
    };
    let width = model["kwargs"]["width_per_group"].as_u64().unwrap_or(64) as usize;
    Some(ResnetSpec { depths, bottleneck: true, width })
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
