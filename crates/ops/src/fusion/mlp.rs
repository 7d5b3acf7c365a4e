//! One or two linear layers with what surrounds them, row block by row block while it is in the cache: `y = epilogue(layer(x))` and, with
//! constant weights, `y = [r +] layer2(gelu(layer(x)))`, both of them also of a normalized x.
//!
//! - operands in this order: `x` `[N, I]`; `gamma` and `beta` `[I]` of a layer norm; `weight` `[O, I]` and, where there is one, `bias`
//!   `[O]` of the layer; `[P, O]` and `[P]` of a second layer; the epilogue's: for a residual `r`, shaped like `y`, and with stochastic
//!   depth `s` `[images]`, factors of what it is added to
//! - `y` `[N, O]` or `[N, P]`

use std::ops::Range;

use esvit_graph::{DType, Io, Op, Precision, Prepacked, Result, Shape, Slice};
use esvit_simd::Mat;
use esvit_simd::gemm::{Chain, ChainLayer, ChainNorm, ChainSizes, ChainWeight, Epilogue, Packed, chain_scratch};

use super::plain::{self, PlainValue};
use crate::epilogue::EpilogueKind;
use crate::layer_norm::LayerNorm;
use crate::linear::Linear;
use crate::precision::rounding;
use crate::{bf16x2, check};

/// A linear layer, or two with a GELU between them, with a layer norm in front and an epilogue behind where there are such.
#[derive(Clone, Debug)]
pub(super) struct FusedMlp {
    /// The layer norm's eps.
    norm: Option<f32>,
    /// Whether the first layer has a bias.
    bias: bool,
    /// Whether the second layer has a bias, where there is one.
    second_bias: Option<bool>,
    /// Epilogue of the last layer: GELU only where it is the first one, factors of images as well.
    epilogue: Option<EpilogueKind>,
}

impl FusedMlp {
    /// A layer, alone or behind a layer norm with this eps.
    pub fn new(norm: Option<f32>, bias: bool) -> FusedMlp {
        FusedMlp { norm, bias, second_bias: None, epilogue: None }
    }

    /// Whether it is one layer without an epilogue.
    pub fn is_one_layer(&self) -> bool {
        self.second_bias.is_none() && self.epilogue.is_none()
    }

    /// Whether it is one layer with a GELU.
    pub fn ends_in_gelu(&self) -> bool {
        self.second_bias.is_none() && self.epilogue == Some(EpilogueKind::Gelu)
    }

    /// Whether it is two layers without an epilogue.
    pub fn is_two_layers(&self) -> bool {
        self.second_bias.is_some() && self.epilogue.is_none()
    }

    /// The MLP whose GELU is this one's epilogue.
    pub fn with_second_layer(self, bias: bool) -> FusedMlp {
        FusedMlp { second_bias: Some(bias), epilogue: None, ..self }
    }

    /// The same layers with this epilogue.
    pub fn with_epilogue(self, epilogue: Option<EpilogueKind>) -> FusedMlp {
        FusedMlp { epilogue, ..self }
    }

    /// Numbers of the operands.
    fn operands(&self) -> MlpOperands {
        let mut next = 1;
        let mut take = |count: usize| {
            next += count;
            next - count..next
        };
        let norm = self.norm.map(|_| take(2));
        let mut layer = |bias| LayerOperands { weight: take(1).start, bias: if bias { Some(take(1).start) } else { None } };
        let first = layer(self.bias);
        let second = self.second_bias.map(layer);
        let epilogue = take(self.epilogue.as_ref().map_or(0, EpilogueKind::operands));
        MlpOperands { norm, first, second, count: epilogue.end, epilogue }
    }

    /// Elements of the hidden layer's and the result's rows.
    fn sizes(&self, shapes: &[&Shape]) -> ChainSizes {
        let operands = self.operands();
        let out = |layer: &LayerOperands| shapes[layer.weight][0];
        let (hidden, last) = match &operands.second {
            Some(second) => (Some(out(&operands.first)), second),
            None => (None, &operands.first),
        };
        ChainSizes { rows: shapes[0][0], width: shapes[0][1], hidden, out: out(last), norm: self.norm.is_some() }
    }

    fn scratch_floats(&self) -> usize {
        self.epilogue.as_ref().map_or(0, EpilogueKind::scratch_floats)
    }
}

/// Numbers of the operands behind x.
struct MlpOperands {
    /// Scale and shift of the layer norm.
    norm: Option<Range<usize>>,
    first: LayerOperands,
    second: Option<LayerOperands>,
    epilogue: Range<usize>,
    /// Number of all operands.
    count: usize,
}

/// Numbers of one layer's operands.
struct LayerOperands {
    weight: usize,
    bias: Option<usize>,
}

impl LayerOperands {
    fn all(&self) -> impl Iterator<Item = usize> + Clone {
        std::iter::once(self.weight).chain(self.bias)
    }

    /// The layer of a product, with its packed weight or the operand.
    fn bind<'a>(&self, io: &Io<'a>, packed: Option<&'a Packed>) -> ChainLayer<'a> {
        let plain = || {
            let (out, width) = io.matrix(self.weight);
            ChainWeight::Plain(Mat::new(io.f32(self.weight), out, width).t())
        };
        ChainLayer { weight: packed.map_or_else(plain, ChainWeight::Packed), bias: self.bias.map(|bias| io.f32(bias)) }
    }
}

/// Weights in the order of the products.
struct PackedLayers {
    first: Packed,
    second: Option<Packed>,
}

impl Op for FusedMlp {
    fn name(&self) -> &'static str {
        match (self.norm.is_some(), self.second_bias.is_some(), &self.epilogue) {
            (false, false, None | Some(EpilogueKind::GeluDerivative)) => "linear",
            (false, false, Some(EpilogueKind::Gelu)) => "linear_gelu",
            (false, false, Some(EpilogueKind::Residual(_))) => "linear_residual",
            (true, false, None | Some(EpilogueKind::GeluDerivative)) => "norm_linear",
            (true, false, Some(EpilogueKind::Gelu)) => "norm_linear_gelu",
            (true, false, Some(EpilogueKind::Residual(_))) => "norm_linear_residual",
            (false, true, None) => "mlp",
            (false, true, Some(_)) => "mlp_residual",
            (true, true, None) => "norm_mlp",
            (true, true, Some(_)) => "norm_mlp_residual",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        let operands = self.operands();
        check::arity(self.name(), inputs, operands.count)?;
        if let (Some(eps), Some(norm)) = (self.norm, &operands.norm) {
            LayerNorm { eps }.infer(&[inputs[0], inputs[norm.start], inputs[norm.start + 1]])?;
        }
        let layer = |x: &Shape, layer: &LayerOperands| {
            let shapes: Vec<&Shape> = std::iter::once(x).chain(layer.all().map(|i| inputs[i])).collect();
            Linear.infer(&shapes)
        };
        let mut results = layer(inputs[0], &operands.first)?;
        if let Some(second) = &operands.second {
            results = layer(&results[0].0, second)?;
        }
        let mut epilogue = operands.epilogue.map(|i| inputs[i]);
        if let Some(residual) = epilogue.next() {
            check::shape(self.name(), "r", residual, &results[0].0)?;
        }
        if let (Some(factors), Some(layout)) = (epilogue.next(), self.epilogue.as_ref().and_then(EpilogueKind::scaled_tokens)) {
            check::shape(self.name(), "s", factors, &[layout.images()])?;
        }
        Ok(results)
    }

    fn reference(&self, io: &mut Io) {
        let operands = self.operands();
        let mut y = PlainValue { shape: io.shapes[0].clone(), values: io.f32(0).to_vec() };
        if let (Some(eps), Some(norm)) = (self.norm, operands.norm) {
            y = y.through(&LayerNorm { eps }, io, norm);
        }
        y = y.through(&Linear, io, operands.first.all());
        if let Some(second) = &operands.second {
            plain::apply(&EpilogueKind::Gelu, &mut y.values, &[]);
            y = y.through(&Linear, io, second.all());
        }
        if let Some(epilogue) = &self.epilogue {
            let inputs: Vec<&[f32]> = operands.epilogue.map(|i| io.f32(i)).collect();
            plain::apply(epilogue, &mut y.values, &inputs);
        }
        io.out().copy_from_slice(&y.values);
    }

    fn fast(&self, io: &mut Io) {
        let operands = self.operands();
        let packed = io.prepacked.and_then(|p| p.downcast_ref::<PackedLayers>());
        let first = operands.first.bind(io, packed.map(|p| &p.first));
        let (hidden, last) = match &operands.second {
            Some(second) => (Some(first), second.bind(io, packed.and_then(|p| p.second.as_ref()))),
            None => (None, first),
        };
        let norm = operands.norm.map(|norm| ChainNorm {
            eps: self.norm.unwrap_or_default(),
            gamma: io.f32(norm.start),
            beta: io.f32(norm.start + 1),
        });
        let pool = io.pool;
        let mut factors = pool.scratch(self.scratch_floats());
        let inputs: Vec<&[f32]> = operands.epilogue.map(|i| io.f32(i)).collect();
        let epilogue = self.epilogue.as_ref().map_or(Epilogue::Identity, |epilogue| epilogue.bind(&inputs, &mut factors));
        let chain = Chain { rounding: rounding(io.precision), norm, hidden, last, epilogue };
        let ChainSizes { rows, out, .. } = self.sizes(&io.shapes);
        chain.run(bf16x2::operand(io, 0), bf16x2::result(&mut io.outputs[0], rows, out), pool);
    }

    fn reads_bf16x2(&self, operand: usize, inputs: &[&Shape]) -> bool {
        // With a hidden layer or a norm, rows are made into words that lie in another order.
        let is_product = self.norm.is_none() && self.second_bias.is_none();
        operand == 0 && is_product && bf16x2::has_even_rows(inputs[0])
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        let sizes = self.sizes(inputs);
        self.is_one_layer() && sizes.out.is_multiple_of(2) && esvit_simd::gemm::writes_bf16x2(sizes.width)
    }

    fn prepack(&self, given: &[Option<Slice>], shapes: &[&Shape], precision: Precision) -> Option<Prepacked> {
        let operands = self.operands();
        let pack = |layer: &LayerOperands| {
            let shape = shapes[layer.weight];
            Packed::new(Mat::new(given[layer.weight]?.f32(), shape[0], shape[1]).t(), rounding(precision))
        };
        let first = pack(&operands.first)?;
        let (mut bytes, mut replaces) = (first.bytes(), vec![operands.first.weight]);
        let second = match &operands.second {
            Some(layer) => {
                let packed = pack(layer)?;
                bytes += packed.bytes();
                replaces.push(layer.weight);
                Some(packed)
            }
            None => None,
        };
        Some(Prepacked { value: Box::new(PackedLayers { first, second }), replaces, bytes })
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        chain_scratch(&self.sizes(inputs), threads) + 4 * self.scratch_floats()
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        let ChainSizes { rows, width, hidden, out, .. } = self.sizes(inputs);
        2 * (rows * hidden.map_or(width * out, |hidden| hidden * (width + out))) as u64
    }
}
