//! Row by row: `y = [r +] layer(x)`, `y = gelu(layer(x))`, and where weights are constant `y = [r +] layer2(gelu(layer(x)))` and all of it of a normalized x, while a
//! block of rows is in the cache.
//!
//! - `x` `[N, I]`; of a layer norm `gamma` and `beta` `[I]`; of a layer `weight` `[O, I]` and, where it has one, `bias` `[O]`; of a second one
//!   `[P, O]` and `[P]`; of a residual `r` and, with stochastic depth, `s` `[images]`, factors of what it is added to; in this order. `y` `[N, O]` or `[N, P]`, as `r`
//! - no gradient, and nothing for a GPU: [`esvit_graph::Graph::fuse`] makes it of operators that have both

use std::any::Any;
use std::sync::Arc;

use esvit_graph::{DType, Io, Next, Op, Precision, Prepacked, Result, Shape, Slice, SliceMut, volume};
use esvit_simd::Mat;
use esvit_simd::gemm::{Chain as Steps, ChainLayer, ChainNorm, ChainSizes, ChainWeight, Epilogue, Packed, chain_scratch};

use super::{Linear, cpu};
use crate::gelu::Gelu;
use crate::layer_norm::LayerNorm;
use crate::precision::rounding;
use crate::residual::Residual;
use crate::rounded::even;
use crate::{Layout, check};

/// A layer and what surrounds it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Layer norm's eps.
    norm: Option<f32>,
    /// Whether the layer has a bias.
    bias: bool,
    then: Then,
}

/// What follows the layer.
#[derive(Clone, Debug, PartialEq)]
enum Then {
    Nothing,
    /// With a factor for each image of the tokens, if there is a layout.
    Residual(Option<Layout>),
    Gelu,
    /// GELU and another layer.
    Layer {
        bias: bool,
        residual: bool,
    },
}

impl Chain {
    /// A layer alone, or what a layer norm makes of it.
    pub(crate) fn new(norm: Option<f32>, operands: usize) -> Chain {
        Chain { norm, bias: operands == 3, then: Then::Nothing }
    }

    /// The chain that does `next` too, the one reader of this one's result.
    pub(super) fn and(&self, next: &Next, constant: bool) -> Option<Arc<dyn Op>> {
        let op: &dyn Any = next.op;
        let residual = op.downcast_ref::<Residual>().filter(|_| next.operand == 1);
        let factors = residual.filter(|_| next.operands == 3).map(|residual| residual.layout.clone());
        let then = match self.then {
            Then::Nothing if residual.is_some() => Then::Residual(factors),
            Then::Nothing if op.is::<Gelu>() => Then::Gelu,
            Then::Gelu if constant && op.is::<Linear>() && next.operand == 0 => Then::Layer { bias: next.operands == 3, residual: false },
            Then::Layer { bias, residual: false } if residual.is_some() && factors.is_none() => Then::Layer { bias, residual: true },
            _ => return None,
        };
        Some(Arc::new(Chain { then, ..self.clone() }))
    }

    /// Where the operands are.
    fn operands(&self) -> Operands {
        let mut next = 1;
        let mut take = |there: bool| {
            let at = next;
            next += usize::from(there);
            there.then_some(at)
        };
        let gamma = take(self.norm.is_some());
        take(self.norm.is_some());
        let mut layer = |bias| LayerOperands { weight: take(true).unwrap_or_default(), bias: take(bias) };
        let first = layer(self.bias);
        let (second, residual) = match self.then {
            Then::Nothing | Then::Gelu => (None, false),
            Then::Residual(_) => (None, true),
            Then::Layer { bias, residual } => (Some(layer(bias)), residual),
        };
        let residual = take(residual);
        let factors = take(self.factors().is_some());
        Operands { gamma, first, second, residual, factors, count: next }
    }

    /// The tokens whose images have a factor each.
    fn factors(&self) -> Option<&Layout> {
        match &self.then {
            Then::Residual(factors) => factors.as_ref(),
            _ => None,
        }
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
}

/// Numbers of the operands behind x.
struct Operands {
    /// The layer norm's scale; its shift is the next.
    gamma: Option<usize>,
    first: LayerOperands,
    second: Option<LayerOperands>,
    residual: Option<usize>,
    factors: Option<usize>,
    count: usize,
}

struct LayerOperands {
    weight: usize,
    bias: Option<usize>,
}

impl LayerOperands {
    fn all(&self) -> impl Iterator<Item = usize> + Clone {
        std::iter::once(self.weight).chain(self.bias)
    }

    /// The layer in a product: its weight packed, or as it is.
    fn bind<'a>(&self, io: &Io<'a>, packed: Option<&'a Packed>) -> ChainLayer<'a> {
        let plain = || {
            let (out, width) = io.matrix(self.weight);
            ChainWeight::Plain(Mat::new(io.f32(self.weight), out, width).t())
        };
        ChainLayer { weight: packed.map_or_else(plain, ChainWeight::Packed), bias: self.bias.map(|bias| io.f32(bias)) }
    }
}

/// Weights in the order of the products.
struct PackedWeights {
    first: Packed,
    second: Option<Packed>,
}

impl Op for Chain {
    fn name(&self) -> &'static str {
        match (self.norm.is_some(), &self.then) {
            (false, Then::Nothing) => "linear",
            (false, Then::Residual(_)) => "linear_residual",
            (false, Then::Gelu) => "linear_gelu",
            (false, Then::Layer { residual: false, .. }) => "mlp",
            (false, Then::Layer { residual: true, .. }) => "mlp_residual",
            (true, Then::Nothing) => "norm_linear",
            (true, Then::Residual(_)) => "norm_linear_residual",
            (true, Then::Gelu) => "norm_linear_gelu",
            (true, Then::Layer { residual: false, .. }) => "norm_mlp",
            (true, Then::Layer { residual: true, .. }) => "norm_mlp_residual",
        }
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        let operands = self.operands();
        check::arity(self.name(), inputs, operands.count)?;
        if let (Some(eps), Some(gamma)) = (self.norm, operands.gamma) {
            LayerNorm { eps }.infer(&[inputs[0], inputs[gamma], inputs[gamma + 1]])?;
        }
        let layer = |x: &Shape, layer: &LayerOperands| {
            let shapes: Vec<&Shape> = std::iter::once(x).chain(layer.all().map(|i| inputs[i])).collect();
            Linear.infer(&shapes)
        };
        let mut results = layer(inputs[0], &operands.first)?;
        if let Some(second) = &operands.second {
            results = layer(&results[0].0, second)?;
        }
        if let Some(residual) = operands.residual {
            check::shape(self.name(), "r", inputs[residual], &results[0].0)?;
        }
        if let (Some(factors), Some(layout)) = (operands.factors, self.factors()) {
            check::shape(self.name(), "s", inputs[factors], &[layout.images()])?;
        }
        Ok(results)
    }

    fn reference(&self, io: &mut Io) {
        let operands = self.operands();
        let layer = |x: &Plain, layer: &LayerOperands| x.then(&Linear, io, layer.all());
        let mut y = Plain { shape: io.shapes[0].clone(), values: io.f32(0).to_vec() };
        if let (Some(eps), Some(gamma)) = (self.norm, operands.gamma) {
            y = y.then(&LayerNorm { eps }, io, gamma..gamma + 2);
        }
        y = layer(&y, &operands.first);
        if self.then == Then::Gelu || operands.second.is_some() {
            y.values.iter_mut().for_each(|y| *y = crate::gelu::plain(*y));
        }
        if let Some(second) = &operands.second {
            y = layer(&y, second);
        }
        if let (Some(factors), Some(layout)) = (operands.factors, self.factors()) {
            let cols = y.shape[1];
            for (tokens, scale) in layout.image_ranges().zip(io.f32(factors)) {
                y.values[tokens.start * cols..tokens.end * cols].iter_mut().for_each(|y| *y *= scale);
            }
        }
        if let Some(residual) = operands.residual {
            y.values.iter_mut().zip(io.f32(residual)).for_each(|(y, r)| *y += r);
        }
        io.out().copy_from_slice(&y.values);
    }

    fn fast(&self, io: &mut Io) {
        let operands = self.operands();
        let packed = io.prepacked.and_then(|p| p.downcast_ref::<PackedWeights>());
        let first = operands.first.bind(io, packed.map(|p| &p.first));
        let (hidden, last) = match &operands.second {
            Some(second) => (Some(first), second.bind(io, packed.and_then(|p| p.second.as_ref()))),
            None => (None, first),
        };
        let norm = |gamma| ChainNorm { eps: self.norm.unwrap_or_default(), gamma: io.f32(gamma), beta: io.f32(gamma + 1) };
        let pool = io.pool;
        let mut of_rows = pool.scratch(self.factors().map_or(0, Layout::tokens));
        if let (Some(factors), Some(layout)) = (operands.factors, self.factors()) {
            layout.spread(io.f32(factors), &mut of_rows);
        }
        let after = match (operands.residual, &self.then) {
            (Some(residual), _) if operands.factors.is_some() => Epilogue::Residual { x: io.f32(residual), scale: &of_rows },
            (Some(residual), _) => Epilogue::Add(io.f32(residual)),
            (None, Then::Gelu) => Epilogue::Gelu,
            (None, _) => Epilogue::Identity,
        };
        let chain = Steps { rounding: rounding(io.precision), norm: operands.gamma.map(norm), hidden, last, epilogue: after };
        let ChainSizes { rows, out, .. } = self.sizes(&io.shapes);
        chain.run(cpu::operand(io, 0), cpu::result(&mut io.outputs[0], rows, out), pool);
    }

    fn reads_bf16x2(&self, operand: usize, inputs: &[&Shape]) -> bool {
        // With a hidden layer or a norm, rows are made into words that lie in another order.
        let is_product = self.norm.is_none() && !matches!(self.then, Then::Layer { .. });
        operand == 0 && is_product && even(inputs[0])
    }

    fn writes_bf16x2(&self, inputs: &[&Shape]) -> bool {
        let sizes = self.sizes(inputs);
        self.then == Then::Nothing && sizes.out.is_multiple_of(2) && esvit_simd::gemm::writes_bf16x2(sizes.width)
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
        Some(Prepacked { value: Box::new(PackedWeights { first, second }), replaces, bytes })
    }

    fn absorb(&self, _operands: usize, next: &Next, constant: bool) -> Option<Arc<dyn Op>> {
        self.and(next, constant)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        chain_scratch(&self.sizes(inputs), threads) + 4 * self.factors().map_or(0, Layout::tokens)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        let ChainSizes { rows, width, hidden, out, .. } = self.sizes(inputs);
        2 * (rows * hidden.map_or(width * out, |hidden| hidden * (width + out))) as u64
    }
}

/// A value on the way of the plain version.
struct Plain {
    shape: Shape,
    values: Vec<f32>,
}

impl Plain {
    /// What an operator makes of it, with some of the chain's operands behind it.
    fn then(&self, op: &dyn Op, io: &Io, operands: impl Iterator<Item = usize> + Clone) -> Plain {
        let shapes: Vec<&Shape> = std::iter::once(&self.shape).chain(operands.clone().map(|i| io.shapes[i])).collect();
        let results = op.infer(&shapes).expect("shapes of a chain fit: they were inferred");
        let mut values: Vec<Vec<f32>> = results.iter().map(|(shape, _)| vec![0.0; volume(shape)]).collect();
        op.reference(&mut Io {
            inputs: std::iter::once(Slice::F32(&self.values)).chain(operands.map(|i| io.inputs[i])).collect(),
            outputs: values.iter_mut().map(|values| SliceMut::F32(values)).collect(),
            shapes,
            pool: io.pool,
            precision: io.precision,
            prepacked: None,
        });
        Plain { shape: results[0].0.clone(), values: values.swap_remove(0) }
    }
}
