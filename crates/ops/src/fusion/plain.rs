//! Plain versions of fused operators, put together from those of their parts.

use esvit_graph::{Io, Op, Shape, Slice, SliceMut, volume};

use crate::epilogue::EpilogueKind;
use crate::gelu;

/// A value between two parts of a fused operator.
pub(super) struct PlainValue {
    pub shape: Shape,
    pub values: Vec<f32>,
}

impl PlainValue {
    /// Result of an operator that reads this value, and behind it some operands of the fused operator.
    pub fn through(&self, op: &dyn Op, io: &Io, operands: impl Iterator<Item = usize> + Clone) -> PlainValue {
        let shapes: Vec<&Shape> = std::iter::once(&self.shape).chain(operands.clone().map(|i| io.shapes[i])).collect();
        let results = op.infer(&shapes).expect("shapes of a fused operator fit: they were inferred");
        let mut values: Vec<Vec<f32>> = results.iter().map(|(shape, _)| vec![0.0; volume(shape)]).collect();
        op.reference(&mut Io {
            inputs: std::iter::once(Slice::F32(&self.values)).chain(operands.map(|i| io.inputs[i])).collect(),
            outputs: values.iter_mut().map(|values| SliceMut::F32(values)).collect(),
            shapes,
            pool: io.pool,
            precision: io.precision,
            prepacked: None,
        });
        PlainValue { shape: results[0].0.clone(), values: values.swap_remove(0) }
    }
}

/// Applies an epilogue in place.
pub(super) fn apply(epilogue: &EpilogueKind, y: &mut [f32], operands: &[&[f32]]) {
    match epilogue {
        EpilogueKind::Gelu => y.iter_mut().for_each(|y| *y = gelu::value(*y)),
        EpilogueKind::GeluDerivative => y.iter_mut().zip(operands[0]).for_each(|(y, &h)| *y *= gelu::derivative(h)),
        EpilogueKind::Residual(layout) => {
            if let Some(layout) = layout {
                let cols = y.len() / layout.tokens();
                for (tokens, scale) in layout.image_ranges().zip(operands[1]) {
                    y[tokens.start * cols..tokens.end * cols].iter_mut().for_each(|y| *y *= scale);
                }
            }
            y.iter_mut().zip(operands[0]).for_each(|(y, r)| *y += r);
        }
    }
}
