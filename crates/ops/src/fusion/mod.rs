//! Fusion: the table of producers and consumers that one operator computes together, and the operators that do.
//!
//! Operators know nothing of this. An elementwise one describes itself as an [`EpilogueKind`]; which pairs are fused, into what, and
//! whether only with constant weights is written in [`PATTERNS`] alone. [`Graph::fuse`](esvit_graph::Graph::fuse) applies it.

mod input_gradient;
mod mlp;
mod plain;

use std::any::Any;
use std::sync::Arc;

use esvit_graph::{Candidate, Op, Pattern};

use crate::epilogue::EpilogueKind;
use crate::layer_norm::LayerNorm;
use crate::linear::{Linear, LinearInputGradient};
use crate::residual::Residual;
use crate::unary::{Unary, UnaryGradient};

use input_gradient::FusedInputGradient;
use mlp::FusedMlp;

/// Every producer and consumer that are fused; for a pair of nodes at most one row holds.
///
/// A layer alone is a [`Linear`] or what a norm and a layer were fused into. Without constant weights a product has an epilogue at most;
/// with them, which are prepacked, all of `norm → linear → GELU → linear → residual` becomes one operator, row block by row block.
pub const PATTERNS: &[Pattern] = &[
    Pattern { producer: is_norm, consumer: is_linear, operand: 0, constant_weights: true, build: norm_and_layer },
    Pattern { producer: is_layer, consumer: is_gelu, operand: 0, constant_weights: false, build: with_epilogue },
    Pattern { producer: is_layer, consumer: is_residual, operand: 1, constant_weights: false, build: with_epilogue },
    Pattern { producer: is_layer_with_gelu, consumer: is_linear, operand: 0, constant_weights: true, build: with_second_layer },
    Pattern { producer: is_mlp, consumer: is_unscaled_residual, operand: 1, constant_weights: true, build: with_epilogue },
    Pattern { producer: is_input_gradient, consumer: is_gelu_gradient, operand: 1, constant_weights: false, build: gradient_with_epilogue },
];

fn downcast<'a, T: Op>(candidate: &Candidate<'a>) -> Option<&'a T> {
    (candidate.op as &dyn Any).downcast_ref()
}

/// The epilogue that an elementwise operator describes itself as.
fn epilogue(candidate: &Candidate) -> Option<EpilogueKind> {
    if let Some(unary) = downcast::<Unary>(candidate) {
        return unary.epilogues.map(|[forward, _]| forward.clone());
    }
    if let Some(UnaryGradient(unary)) = downcast::<UnaryGradient>(candidate) {
        return unary.epilogues.map(|[_, gradient]| gradient.clone());
    }
    downcast::<Residual>(candidate).map(|residual| residual.epilogue(candidate.operands))
}

fn is_gelu(candidate: &Candidate) -> bool {
    epilogue(candidate) == Some(EpilogueKind::Gelu)
}

fn is_gelu_gradient(candidate: &Candidate) -> bool {
    epilogue(candidate) == Some(EpilogueKind::GeluDerivative)
}

fn is_residual(candidate: &Candidate) -> bool {
    matches!(epilogue(candidate), Some(EpilogueKind::Residual(_)))
}

fn is_unscaled_residual(candidate: &Candidate) -> bool {
    epilogue(candidate) == Some(EpilogueKind::Residual(None))
}

fn is_norm(candidate: &Candidate) -> bool {
    downcast::<LayerNorm>(candidate).is_some()
}

fn is_linear(candidate: &Candidate) -> bool {
    downcast::<Linear>(candidate).is_some()
}

fn is_input_gradient(candidate: &Candidate) -> bool {
    downcast::<LinearInputGradient>(candidate).is_some()
}

fn is_layer(candidate: &Candidate) -> bool {
    is_linear(candidate) || downcast::<FusedMlp>(candidate).is_some_and(FusedMlp::is_one_layer)
}

fn is_layer_with_gelu(candidate: &Candidate) -> bool {
    downcast::<FusedMlp>(candidate).is_some_and(FusedMlp::ends_in_gelu)
}

fn is_mlp(candidate: &Candidate) -> bool {
    downcast::<FusedMlp>(candidate).is_some_and(FusedMlp::is_two_layers)
}

/// Whether a [`Linear`] with so many operands has a bias.
fn has_bias(linear: &Candidate) -> bool {
    linear.operands == 3
}

/// The producer as it is, or a [`Linear`] as the first part of a [`FusedMlp`].
fn mlp_of(producer: &Candidate) -> FusedMlp {
    downcast::<FusedMlp>(producer).cloned().unwrap_or_else(|| FusedMlp::new(None, has_bias(producer)))
}

fn norm_and_layer(norm: &Candidate, linear: &Candidate) -> Arc<dyn Op> {
    Arc::new(FusedMlp::new(downcast::<LayerNorm>(norm).map(|norm| norm.eps), has_bias(linear)))
}

fn with_epilogue(producer: &Candidate, consumer: &Candidate) -> Arc<dyn Op> {
    Arc::new(mlp_of(producer).with_epilogue(epilogue(consumer)))
}

fn with_second_layer(producer: &Candidate, linear: &Candidate) -> Arc<dyn Op> {
    Arc::new(mlp_of(producer).with_second_layer(has_bias(linear)))
}

fn gradient_with_epilogue(_: &Candidate, _: &Candidate) -> Arc<dyn Op> {
    Arc::new(FusedInputGradient)
}
