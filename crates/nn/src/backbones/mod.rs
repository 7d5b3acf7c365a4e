//! Backbones. Adding one is a file here, an arm of [`build`], and a member of the specification.

mod cvt;
mod resnet;
mod swin;
mod vil;
mod vit;

use esvit_graph::{Graph, Result, Value};
use esvit_ops::patchify::Patchify;

use crate::spec::BackboneSpec;
use crate::{Mode, RunningStatistics, Scope, TokenMatrix};

/// Contract of a backbone.
pub trait Backbone {
    /// Channels C of the features.
    fn width(&self) -> usize;

    /// Side of a patch in pixels: crops are cut by it. 1 where the backbone begins with a convolution over the pixels.
    fn patch_size(&self) -> usize;

    /// Crops to features.
    fn forward(&self, g: &mut Graph, input: &BackboneInput) -> Result<Features>;

    /// Rate of stochastic depth of each residual branch, in the order [`BackboneInput::drop_path`] holds their factors.
    fn drop_path_rates(&self) -> Vec<f64>;

    /// Attention layers whose neighbors are sampled for each segment at every step, in the order of [`BackboneInput::neighbors`], and the share
    /// of the training in which they are.
    fn sampled_layers(&self) -> (usize, f64) {
        (0, 0.0)
    }
}

/// Pixels of a step and the randomness of the forward pass.
pub struct BackboneInput<'a> {
    /// Packed pixels.
    pub pixels: Value,
    /// Layout of the pixels.
    pub crops: &'a Patchify,
    /// For each residual branch a factor for every image `[images]`, or none where its rate is 0; empty turns
    /// stochastic depth off.
    pub drop_path: Vec<Option<Value>>,
    /// Where batch norms take their statistics from.
    pub mode: Mode,
    /// For each attention layer that samples its neighbors `[segments]`, u32: 0 for all of them, 1 to 8 for one. Empty for all, always.
    pub neighbors: Vec<Value>,
}

/// Results of a backbone.
pub struct Features {
    /// `[images, C]`, pooled.
    pub view: Value,
    /// `[N, C]`, one row for each region.
    pub regions: TokenMatrix,
    /// Token means or class tokens after each block `[images, C of its stage]`, normed in the last stage; linear evaluation
    /// concatenates them. Nodes nobody asks for are dropped when the program is compiled.
    pub blocks: Vec<Value>,
    /// Attention of each block, `[windows, H, T, T]`, or whole images where there are no windows: what the analysis looks at. Dropped like
    /// the above.
    pub attention: Vec<Value>,
    /// Statistics of the batch norms, in the order of the running averages.
    pub statistics: Vec<RunningStatistics>,
}

/// Builds the backbone a specification names, declaring its parameters in `scope`.
///
/// # Errors
/// When the specification is inconsistent.
pub fn build(spec: &BackboneSpec, g: &mut Graph, scope: &mut Scope) -> Result<Box<dyn Backbone>> {
    match spec {
        BackboneSpec::Cvt(spec) => Ok(Box::new(cvt::Cvt::new(spec, g, scope)?)),
        BackboneSpec::Resnet(spec) => Ok(Box::new(resnet::Resnet::new(spec, g, scope)?)),
        BackboneSpec::Swin(spec) => Ok(Box::new(swin::Swin::new(spec, g, scope)?)),
        BackboneSpec::Vil(spec) => Ok(Box::new(vil::Vil::new(spec, g, scope)?)),
        BackboneSpec::Vit(spec) => Ok(Box::new(vit::Vit::new(spec, g, scope)?)),
    }
}
