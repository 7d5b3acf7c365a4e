//! Bicubic resampling of one axis, as PyTorch does it with a given factor.

/// Four taps for each sample.
#[derive(Clone, Debug)]
pub struct Cubic {
    taps: Vec<[(usize, f32); 4]>,
    /// Whether the number of samples stays.
    same: bool,
}

/// The kernel's constant.
const A: f32 = -0.75;

impl Cubic {
    /// `from` samples to `to`, with the scale `factor`: sample i comes from `(i + ½)/factor − ½`. Not antialiased; beyond the ends
    /// the outermost sample counts. In single precision like the original, whose coordinates reach several hundred: there the
    /// rounding is visible.
    pub fn new(from: usize, to: usize, factor: f64) -> Cubic {
        if from == to && factor == 1.0 {
            let taps = (0..to).map(|i| [(i, 1.0), (i, 0.0), (i, 0.0), (i, 0.0)]).collect();
            return Cubic { taps, same: true };
        }
        let scale = (1.0 / factor) as f32;
        let near = |t: f32| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
        let far = |t: f32| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
        let taps = (0..to).map(|i| {
            let at = scale * (i as f32 + 0.5) - 0.5;
            let base = at.floor();
            let t = at - base;
            let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
            std::array::from_fn(|k| ((base as i64 + k as i64 - 1).clamp(0, from as i64 - 1) as usize, weights[k]))
        });
        Cubic { taps: taps.collect(), same: from == to }
    }

    /// Source and weight of each tap of sample `i` that counts.
    pub fn taps(&self, i: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        self.taps[i].iter().copied().filter(|&(_, weight)| weight != 0.0)
    }

    /// The taps that the gradient goes through. PyTorch passes it on unchanged where the size stays the same, whatever the factor
    /// (docs/decisions/0035-gradient-of-a-resampling.md).
    pub fn gradient_taps(&self, i: usize) -> Vec<(usize, f32)> {
        if self.same { vec![(i, 1.0)] } else { self.taps(i).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cubic: &Cubic, i: usize, signal: impl Fn(usize) -> f32) -> f32 {
        cubic.taps(i).map(|(from, weight)| weight * signal(from)).sum()
    }

    #[test]
    fn weights_sum_to_one() {
        for (from, to) in [(14, 6), (6, 14), (7, 7)] {
            let cubic = Cubic::new(from, to, to as f64 / from as f64);
            for i in 0..to {
                let sum = at(&cubic, i, |_| 1.0);
                assert!((sum - 1.0).abs() < 1e-6, "{sum}");
            }
        }
    }

    // With −¾ the kernel bends a ramp between samples, but not on a sample nor halfway.
    #[test]
    fn whole_coordinates_keep_their_sample_and_halves_the_mean_of_a_ramp() {
        let thirds = Cubic::new(15, 5, 1.0 / 3.0);
        for i in 0..5 {
            let want = ((3 * i + 1) as f32).sin();
            assert!((at(&thirds, i, |from| (from as f32).sin()) - want).abs() < 1e-5, "sample {i}");
        }
        let halves = Cubic::new(14, 7, 0.5);
        for i in 1..6 {
            let want = 2.0 * i as f32 + 0.5;
            assert!((at(&halves, i, |from| from as f32) - want).abs() < 1e-4, "half {i}");
        }
    }
}
