//! The forward pass of an evaluation as a graph.

use esvit_graph::{DType, Graph, Leaf, Program, Value};
use esvit_nn::backbones::{self, BackboneInput};
use esvit_nn::{Mode, Parameters, Scope, leaf_name};
use esvit_ops::patchify::Patchify;
use esvit_ops::token_mean::TokenMean;
use esvit_ops::{Layout, Segment};

use crate::spec::{EncoderSpec, FeatureOutput};
use crate::{DeviceKind, Error, Result};

const NETWORK: &str = "encoder";

/// A compiled forward pass for evaluation.
#[derive(Debug)]
pub(crate) struct CompiledForward {
    pub program: Program,
    pub parameters: Parameters,
    /// Leaf of each entry of the state dict.
    pub weights: Vec<Option<Leaf>>,
    pub pixels: Option<Leaf>,
    /// Matrices `[batch, width]` that make a feature, side by side.
    pub outputs: Vec<Value>,
    pub widths: Vec<usize>,
}

/// Builds the forward pass that a device runs.
pub(crate) fn build(spec: &EncoderSpec, device: DeviceKind) -> Result<CompiledForward> {
    let images = Layout::new(vec![Segment { images: spec.batch, height: spec.image_size, width: spec.image_size }]);
    let mut g = Graph::new();
    let mut parameters = Parameters::default();
    let backbone = backbones::build(&spec.backbone, &mut g, &mut Scope::root(&mut parameters, NETWORK))?;
    let pixels = g.leaf("pixels", &[3 * images.tokens()], DType::U8)?;
    let crops = Patchify { pixels: images, patch: backbone.patch_size() };
    let input = BackboneInput { pixels, crops: &crops, drop_path: Vec::new(), neighbors: Vec::new(), mode: Mode::Eval };
    let features = backbone.forward(&mut g, &input)?;
    let blocks = features.blocks.len();
    let mut outputs = match spec.output {
        FeatureOutput::View => vec![features.view],
        FeatureOutput::LastBlocks(n) | FeatureOutput::LastBlocksAndRegions(n) if (1..=blocks).contains(&n) => {
            features.blocks[blocks - n..].to_vec()
        }
        FeatureOutput::LastBlocks(n) | FeatureOutput::LastBlocksAndRegions(n) => {
            return Err(Error::Spec(format!("last_blocks must be between 1 and {blocks}, got {n}")));
        }
    };
    if let FeatureOutput::LastBlocksAndRegions(_) = spec.output {
        outputs.push(g.apply1(TokenMean { layout: features.regions.layout.clone() }, &[features.regions.value])?);
    }
    let widths = outputs.iter().map(|v| g.matrix(*v).1).collect();
    let program = match device {
        DeviceKind::Cpu => {
            g.fuse(esvit_ops::fusion::PATTERNS, &outputs, true);
            Program::compile(&g, &outputs).with_precision(spec.precision.into()).with_bf16x2()
        }
        DeviceKind::Gpu => Program::compile(&g, &outputs).with_precision(spec.precision.into()),
    };
    let weights = parameters.entries.iter().map(|e| program.leaf(&leaf_name(NETWORK, &e.name))).collect();
    let pixels = program.leaf("pixels");
    Ok(CompiledForward { program, parameters, weights, pixels, outputs, widths })
}
