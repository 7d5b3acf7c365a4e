//! One expected array, whole or as a digest: samples, sums and the exactness of both.

/// Samples a digest keeps of an array.
pub const SAMPLES: usize = 64;

/// Distance of the stored float32 result from the same computation in float64; `None` where not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// Largest absolute difference.
    pub max_abs: Option<f64>,
    /// L2 of the difference over L2 of the float64 result.
    pub rel_l2: Option<f64>,
}

/// Values that are stored of an array.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Every element, row-major.
    Full(Vec<f32>),
    /// The elements at [`sample_index`]; empty if the array has no elements.
    Samples(Vec<f32>),
}

/// One expected array, whole or as a digest.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenTensor {
    /// Fixture and tensor, for messages: `backbones/micro_swin_w7: eval.view`.
    pub label: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// The elements that are stored.
    pub values: Values,
    /// Sum of all elements.
    pub sum: f64,
    /// Root of the sum of their squares.
    pub l2: f64,
    /// Largest magnitude.
    pub absmax: f64,
    /// Exactness of the stored values.
    pub noise: Noise,
}

impl GoldenTensor {
    /// Number of elements of the array.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True if the array has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stored elements with their linear indices. Short arrays repeat indices in a digest.
    pub fn points(&self) -> impl Iterator<Item = (usize, f32)> + '_ {
        let n = self.len();
        let (values, full) = match &self.values {
            Values::Full(values) => (values, true),
            Values::Samples(values) => (values, false),
        };
        values.iter().enumerate().map(move |(j, &value)| (if full { j } else { sample_index(j, n) }, value))
    }
}

/// One entry of a group, for instance the gradient of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupRow {
    /// Name of the entry.
    pub name: String,
    /// The expected array; `None` if there is none (no gradient: a frozen parameter).
    pub golden: Option<GoldenTensor>,
}

/// Linear index of sample `j` (of [`SAMPLES`]) in an array of `n >= 1` elements.
pub fn sample_index(j: usize, n: usize) -> usize {
    j * (n - 1) / (SAMPLES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_run_from_the_first_to_the_last_element() {
        assert_eq!(sample_index(0, 5000), 0);
        assert_eq!(sample_index(SAMPLES - 1, 5000), 4999);
        assert_eq!(sample_index(31, 5000), 31 * 4999 / 63);
        assert!((0..SAMPLES).all(|j| sample_index(j, 1) == 0));
    }
}
