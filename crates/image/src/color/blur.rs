//! Gaussian blur as Pillow does it: three box blurs along the rows, then three along the columns.
//!
//! A box of fractional radius `R = r + α` weighs the `2r + 1` nearest samples with 1 and the two
//! next with α, all divided by `2R + 1`, in 24-bit fixed point; beyond the border the outermost
//! sample repeats. 8 bits are kept between any two passes.
//!
//! Source: Pillow, `BoxBlur.c`; Gwosdek et al. 2011, "Theoretical foundations of Gaussian
//! convolution by extended box filtering", eqs. 7, 11, 14.

use crate::dispatch::multiversion;
use crate::raster::CHANNELS;

/// Box blurs an axis.
const PASSES: usize = 3;

/// One box, for one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BoxKernel {
    /// Whole samples on each side that have the full weight.
    radius: usize,
    /// The full weight, in 2⁻²⁴.
    near: u32,
    /// The weight of the two samples beyond, in 2⁻²⁴.
    far: u32,
}

impl BoxKernel {
    /// The box of which three in a row have the variance of a Gaussian with `sigma`; none when
    /// it would leave the samples as they are. f32 and f64 alternate as in Pillow.
    fn for_gaussian(sigma: f32) -> Option<Self> {
        let variance = sigma * sigma / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance) / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)));
        let fractional = whole + part;
        // Pillow skips radius 0; -0.0 is what sigma 0 gives.
        if fractional <= 0.0 {
            return None;
        }
        let radius = fractional as usize;
        let near = ((1 << 24) as f32 / (fractional * 2.0 + 1.0)) as u32;
        let far = ((1 << 24) - (2 * radius as u32 + 1) * near) / 2;
        Some(Self { radius, near, far })
    }
}

/// Largest standard deviation, in pixels: sums of a box then still fit 16 bits.
pub const MAX_SIGMA: f32 = 100.0;

/// Blurs `[height, width, 3]` with a Gaussian of standard deviation `sigma` pixels, at most
/// [`MAX_SIGMA`], which replaces anything above.
pub fn gaussian_blur(pixels: &mut [u8], width: u32, height: u32, sigma: f32) {
    if let Some(kernel) = BoxKernel::for_gaussian(sigma.min(MAX_SIGMA)) {
        blur_rows(pixels, width as usize, kernel);
        blur_columns(pixels, width as usize * CHANNELS, height as usize, kernel);
    }
}

multiversion! {
    fn blur_rows(pixels: &mut [u8], width: usize, kernel: BoxKernel) = blur_rows_body;
}

/// A row is copied between two margins of repeated pixels; a neighbor is then the same row, read
/// some pixels further on.
#[inline(always)]
fn blur_rows_body(pixels: &mut [u8], width: usize, kernel: BoxKernel) {
    let margin = (kernel.radius + 1) * CHANNELS;
    let length = width * CHANNELS;
    let mut padded = vec![0; length + 2 * margin];
    let mut inner = vec![0; length];
    for row in pixels.chunks_exact_mut(length) {
        for _ in 0..PASSES {
            padded[margin..margin + length].copy_from_slice(row);
            for j in 0..margin {
                padded[j] = row[j % CHANNELS];
                padded[margin + length + j] = row[length - CHANNELS + j % CHANNELS];
            }
            inner.fill(0);
            for neighbor in 1..2 * kernel.radius + 2 {
                add(&mut inner, &padded[neighbor * CHANNELS..]);
            }
            weigh(kernel, &inner, &padded, &padded[2 * margin..], row);
        }
    }
}

multiversion! {
    fn blur_columns(pixels: &mut [u8], stride: usize, height: usize, kernel: BoxKernel) = blur_columns_body;
}

/// A neighbor is another row; beyond the border, the outermost one. From one row to the next, one
/// row enters the sum and one leaves it.
#[inline(always)]
fn blur_columns_body(pixels: &mut [u8], stride: usize, height: usize, kernel: BoxKernel) {
    let mut before = vec![0; pixels.len()];
    let mut inner = vec![0; stride];
    let reach = kernel.radius + 1;
    for _ in 0..PASSES {
        before.copy_from_slice(pixels);
        // `at` counts from the first row of the margin.
        let row = |at: usize| &before[at.saturating_sub(reach).min(height - 1) * stride..][..stride];
        // The sum for the row above the first.
        inner.fill(0);
        for at in 0..2 * kernel.radius + 1 {
            add(&mut inner, row(at));
        }
        for y in 0..height {
            // The row that leaves is the one just beyond the box.
            let leaving = row(y);
            add(&mut inner, row(y + 2 * reach - 1));
            subtract(&mut inner, leaving);
            weigh(kernel, &inner, leaving, row(y + 2 * reach), &mut pixels[y * stride..(y + 1) * stride]);
        }
    }
}

/// Adds a sample to each sum.
#[inline(always)]
fn add(sums: &mut [u16], samples: &[u8]) {
    let samples = &samples[..sums.len()];
    for j in 0..sums.len() {
        sums[j] += u16::from(samples[j]);
    }
}

/// Takes a sample away from each sum.
#[inline(always)]
fn subtract(sums: &mut [u16], samples: &[u8]) {
    let samples = &samples[..sums.len()];
    for j in 0..sums.len() {
        sums[j] -= u16::from(samples[j]);
    }
}

/// `out = (near · inner + far · (left + right)) / 2²⁴`, rounded; `inner` are the sums of the samples
/// of full weight.
#[inline(always)]
fn weigh(kernel: BoxKernel, inner: &[u16], left: &[u8], right: &[u8], out: &mut [u8]) {
    let length = out.len();
    let (inner, left, right) = (&inner[..length], &left[..length], &right[..length]);
    for j in 0..length {
        let outer = u32::from(left[j]) + u32::from(right[j]);
        out[j] = ((kernel.near * u32::from(inner[j]) + kernel.far * outer + (1 << 23)) >> 24) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(samples: usize) -> Vec<u8> {
        (0..samples as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    /// One box blur along the rows, sample by sample.
    fn blackboard_rows(pixels: &[u8], width: usize, kernel: BoxKernel) -> Vec<u8> {
        let at = |row: &[u8], x: isize, c: usize| u32::from(row[x.clamp(0, width as isize - 1) as usize * CHANNELS + c]);
        let mut out = Vec::new();
        for row in pixels.chunks_exact(width * CHANNELS) {
            for x in 0..width as isize {
                for c in 0..CHANNELS {
                    let r = kernel.radius as isize;
                    let near: u32 = (-r..=r).map(|d| at(row, x + d, c)).sum();
                    let far = at(row, x - r - 1, c) + at(row, x + r + 1, c);
                    out.push(((near * kernel.near + far * kernel.far + (1 << 23)) >> 24) as u8);
                }
            }
        }
        out
    }

    fn transpose(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
        let pixels = pixels.as_chunks::<CHANNELS>().0;
        (0..width).flat_map(|x| (0..height).flat_map(move |y| pixels[y * width + x])).collect()
    }

    #[test]
    fn both_builds_equal_the_blackboard() {
        // Pictures smaller than the box, and rows on both sides of the span of 32 samples.
        for (width, height) in [(1, 1), (2, 9), (10, 3), (11, 4), (40, 30)] {
            for sigma in [0.1, 0.5, 1.37, 2.0, 6.0] {
                let kernel = BoxKernel::for_gaussian(sigma).unwrap();
                let start = noise(width * height * CHANNELS);
                let mut wanted = start.clone();
                for _ in 0..PASSES {
                    wanted = blackboard_rows(&wanted, width, kernel);
                }
                wanted = transpose(&wanted, width, height);
                for _ in 0..PASSES {
                    wanted = blackboard_rows(&wanted, height, kernel);
                }
                wanted = transpose(&wanted, height, width);

                let (mut fast, mut plain) = (start.clone(), start);
                gaussian_blur(&mut fast, width as u32, height as u32, sigma);
                assert_eq!(fast, wanted, "{width} x {height}, sigma {sigma}");
                blur_rows_body(&mut plain, width, kernel);
                blur_columns_body(&mut plain, width * CHANNELS, height, kernel);
                assert_eq!(plain, wanted, "plain build, {width} x {height}, sigma {sigma}");
            }
        }
    }

    #[test]
    fn no_sigma_no_change() {
        assert_eq!(BoxKernel::for_gaussian(0.0), None);
    }

    #[test]
    fn the_weights_add_up_to_one() {
        for sigma in [0.1_f32, 0.4, 1.0, 2.0, 3.3, 10.0, 100.0] {
            let kernel = BoxKernel::for_gaussian(sigma).unwrap();
            let sum = (2 * kernel.radius as u32 + 1) * kernel.near + 2 * kernel.far;
            assert!((1 << 24) - sum <= 1, "sigma {sigma}: {sum}");
        }
    }
}
