//! Our specification of a fixture's `model`, family by family.

use esvit_nn::spec::{BackboneSpec, CvtSpec, ResnetSpec, SwinSpec, VilBorder, VilGate, VilNeighbors, VilPool, VilSpec, VilStage, VitSpec};
use serde_json::Value as Json;

/// `None` for families that are not there yet.
pub fn backbone_spec(model: &Json) -> Option<BackboneSpec> {
    match model["family"].as_str()? {
        "cvt" => cvt(&model["SPEC"]).map(BackboneSpec::Cvt),
        "resnet" => resnet(model).map(BackboneSpec::Resnet),
        "swin" => swin(model).map(BackboneSpec::Swin),
        "vil" => vil(model).map(BackboneSpec::Vil),
        "vit" => vit(model).map(BackboneSpec::Vit),
        _ => None,
    }
}

fn number(json: &Json) -> Option<usize> {
    json.as_u64().map(|v| v as usize)
}

fn numbers(json: &Json) -> Option<Vec<usize>> {
    json.as_array().map(|a| a.iter().filter_map(number).collect())
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

/// A torchvision name, or the arguments of its `ResNet` of bottlenecks.
fn resnet(model: &Json) -> Option<ResnetSpec> {
    let given = |key: &str, default| model["kwargs"][key].as_u64().map_or(default, |v| v as usize);
    let (depths, width, groups) = match model["arch"].as_str() {
        Some("resnet50") => (vec![3, 4, 6, 3], 64, 1),
        Some("resnext50_32x4d") => (vec![3, 4, 6, 3], 4, 32),
        Some("resnext101_32x8d") => (vec![3, 4, 23, 3], 8, 32),
        Some("resnext101_64x4d") => (vec![3, 4, 23, 3], 4, 64),
        Some(_) => return None,
        None => (numbers(&model["kwargs"]["layers"])?, given("width_per_group", 64), given("groups", 1)),
    };
    Some(ResnetSpec { depths, bottleneck: true, dim: 64, width, groups })
}

fn swin(model: &Json) -> Option<SwinSpec> {
    let spec = &model["SPEC"];
    let list = |key: &str| spec[key].as_array().map(|a| a.iter().filter_map(number).collect());
    Some(SwinSpec {
        image_size: number(&model["IMAGE_SIZE"][0])?,
        patch_size: number(&spec["PATCH_SIZE"])?,
        dim: number(&spec["DIM_EMBED"])?,
        depths: list("DEPTHS")?,
        heads: list("NUM_HEADS")?,
        window: number(&spec["WINDOW_SIZE"])?,
        mlp_ratio: spec["MLP_RATIO"].as_f64()?,
        qkv_bias: spec["QKV_BIAS"].as_bool()?,
        absolute_position: spec["USE_APE"].as_bool()?,
        patch_norm: spec["PATCH_NORM"].as_bool()?,
        drop_path: spec["DROP_PATH_RATE"].as_f64()?,
    })
}

/// Named architectures, or the arguments of the original's class.
fn vit(model: &Json) -> Option<VitSpec> {
    let given = &model["kwargs"];
    let (dim, heads) = match model["arch"].as_str() {
        Some("deit_tiny") => (192, 3),
        Some("deit_small") => (384, 6),
        Some("vit_base") => (768, 12),
        Some(_) => return None,
        None => (number(&given["embed_dim"])?, number(&given["num_heads"])?),
    };
    Some(VitSpec {
        image_size: 224,
        patch_size: number(&given["patch_size"])?,
        dim,
        depth: number(&given["depth"]).unwrap_or(12),
        heads,
        mlp_ratio: given["mlp_ratio"].as_f64().unwrap_or(4.0),
        qkv_bias: given["qkv_bias"].as_bool().unwrap_or(true),
        drop_path: 0.0,
    })
}

fn vil(model: &Json) -> Option<VilSpec> {
    let spec = &model["SPEC"];
    let own = &spec["MSVIT"];
    let stages = own["ARCH"].as_str()?.split('_').map(|stage| {
        let value = |key: char, default: usize| {
            stage.split(',').find_map(|attribute| attribute.strip_prefix(key)).and_then(|v| v.parse().ok()).unwrap_or(default)
        };
        VilStage {
            heads: value('h', 3),
            dim: value('d', 192),
            depth: value('n', 1),
            sparse: value('s', 1) != 0,
            globals: value('g', 1),
            patch_size: value('p', 2),
            window: value('f', 7),
            absolute_position: value('a', 1) != 0,
            pooled: value('r', 0) != 0,
        }
    });
    Some(VilSpec {
        image_size: number(&model["IMAGE_SIZE"][0])?,
        stages: stages.collect(),
        norm_embed: spec["NORM_EMBED"].as_bool()?,
        average_pool: spec["AVG_POOL"].as_bool()?,
        share_weights: own["SHARE_W"].as_bool()?,
        only_global: own["ONLY_GLOBAL"].as_bool()?,
        border: match own["SW_EXACT"].as_i64()? {
            0 => VilBorder::Open,
            -1 => VilBorder::Cyclic,
            _ => VilBorder::Exact,
        },
        neighbors: match own["MODE"].as_i64()? {
            0 => VilNeighbors::All,
            -1 => VilNeighbors::None,
            _ => VilNeighbors::Drawn,
        },
        draw_until: 1.0,
        pool: if own["POOL_METHOD"] == "fc" { VilPool::Learned } else { VilPool::Mean },
        gate: match own["WITH_SE"].as_str()? {
            "SE" => VilGate::Squeeze,
            "ECA" => VilGate::Convolution,
            _ => VilGate::None,
        },
        gate_ratio: own["SE_MLP_RATIO"].as_f64()?,
        gate_balance: own["SE_MLP_BALANCE"].as_bool()?,
        drop_path: spec["DROP_PATH"].as_f64()?,
    })
}
