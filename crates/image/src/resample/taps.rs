//! Filters, and which input positions of one axis each output position reads with which weight.
//!
//! Weights are normalized in f64, then rounded to [`PRECISION_BITS`] fractional bits.

use std::ops::Range;

use serde::Deserialize;

/// Fractional bits of a weight: 32 less 8 for the sample and 2 for sums beyond 1 and the sign.
pub(super) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Interpolation kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum ResampleFilter {
    /// Keys' cubic with a = -0.5, support 2.
    Bicubic,
    /// Triangle, support 1.
    Bilinear,
}

impl ResampleFilter {
    fn support(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear => 1.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bilinear if x < 1.0 => 1.0 - x,
            _ => 0.0,
        }
    }
}
/// The input positions one output position reads.
struct TapSpan {
    /// First input position.
    first: usize,
    /// Place of the weights in `Taps::weights`, one for each position from `first` on.
    weights: Range<usize>,
}

/// Input positions and weights of every output position of one axis.
pub(super) struct Taps {
    spans: Vec<TapSpan>,
    weights: Vec<i32>,
}

impl Taps {
    /// Taps of the positions `window` of an axis of `input` samples resized to `output`.
    pub(super) fn new(input: u32, output: u32, window: Range<u32>, filter: ResampleFilter) -> Self {
        let scale = f64::from(input) / f64::from(output);
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let (mut spans, mut weights) = (Vec::with_capacity(window.len()), Vec::new());
        let mut exact = Vec::new();
        for position in window {
            let center = (f64::from(position) + 0.5) * scale;
            // Truncation towards zero, as C casts; both ends then stay inside the axis.
            let first = ((center - support + 0.5) as i64).max(0);
            let end = ((center + support + 0.5) as i64).min(i64::from(input));
            exact.clear();
            exact.extend((first..end).map(|at| filter.weight((at as f64 - center + 0.5) * (1.0 / filter_scale))));
            let sum: f64 = exact.iter().sum();
            spans.push(TapSpan { first: first as usize, weights: weights.len()..weights.len() + exact.len() });
            weights.extend(exact.iter().map(|&weight| {
                let scaled = (if sum == 0.0 { weight } else { weight / sum }) * f64::from(1 << PRECISION_BITS);
                (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
            }));
        }
        Self { spans, weights }
    }

    /// Range of the input positions read, from the first to the last; the spans then count from the first.
    pub(super) fn trim(&mut self) -> Range<usize> {
        let start = self.spans.iter().map(|span| span.first).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.first + span.weights.len()).max().unwrap_or(0);
        for span in &mut self.spans {
            span.first -= start;
        }
        start..end
    }

    /// Number of output positions.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// First input position and weights of one output position.
    #[inline(always)]
    pub(super) fn of(&self, position: usize) -> (usize, &[i32]) {
        let span = &self.spans[position];
        (span.first, &self.weights[span.weights.start..span.weights.end])
    }
}
