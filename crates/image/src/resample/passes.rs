//! The two passes of a resize, along the rows and along the columns.
//!
//! Sums start at one half and are shifted down. Integers in any order of addition, so every build gives the same bytes.

use super::taps::{PRECISION_BITS, Taps};
use crate::dispatch::multiversion;
use crate::raster::CHANNELS;

/// Samples either pass sums up at once: four registers of AVX2.
const SPAN: usize = 32;
/// Rows the horizontal pass works on at once: each takes four lanes of a span, the last unused.
const ROWS: usize = SPAN / 4;

/// Rounds off a sum of weighted samples and clips it.
#[inline(always)]
fn to_sample(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// [`to_sample`] of every lane.
#[inline(always)]
fn to_samples(sums: &[i32; SPAN]) -> [u8; SPAN] {
    let mut samples = [0; SPAN];
    for lane in 0..SPAN {
        samples[lane] = to_sample(sums[lane]);
    }
    samples
}

/// Adds the first [`SPAN`] samples times `weight`, lane by lane.
#[inline(always)]
fn add_weighted(sums: &mut [i32; SPAN], samples: &[u8], weight: i32) {
    let samples = &samples[..SPAN];
    for lane in 0..SPAN {
        sums[lane] = sums[lane].wrapping_add(i32::from(samples[lane]) * weight);
    }
}

/// Where a sum of weighted samples starts: at the half that makes the shift round.
pub(super) const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// A part of a picture: `height` rows of `width` pixels that begin `stride` samples apart.
pub(super) struct PixelView<'a> {
    pub(super) samples: &'a [u8],
    pub(super) stride: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

impl PixelView<'_> {
    #[inline(always)]
    fn row(&self, row: usize) -> &[u8] {
        &self.samples[row * self.stride..][..self.width * CHANNELS]
    }
}

multiversion! {
    /// `out[y, x] = Σ weight · source[y, first + k]`, for all rows of `source`.
    pub(super) fn horizontal(source: &PixelView, taps: &Taps, out: &mut [u8]) = horizontal_body;
}

/// Resizes [`ROWS`] rows at once, laid out column by column before and after: so a tap is whole registers times one weight.
#[inline(always)]
pub(super) fn horizontal_body(source: &PixelView, taps: &Taps, out: &mut [u8]) {
    let (width, out_width) = (source.width, taps.len());
    let mut columns = vec![[0u8; SPAN]; width]; // [width, ROWS, 4]
    let mut resized = vec![[0u8; SPAN]; out_width]; // [out_width, ROWS, 4]
    // A pixel is moved as four bytes, one more than it has; hence one more than the row.
    let mut line = vec![0u8; width.max(out_width) * CHANNELS + 1];
    for first_row in (0..source.height).step_by(ROWS) {
        let rows = ROWS.min(source.height - first_row);
        for lane in 0..rows {
            line[..width * CHANNELS].copy_from_slice(source.row(first_row + lane));
            for x in 0..width {
                let pixel = &line[CHANNELS * x..CHANNELS * x + 4];
                let place = &mut columns[x][4 * lane..4 * lane + 4];
                (place[0], place[1], place[2], place[3]) = (pixel[0], pixel[1], pixel[2], pixel[3]);
            }
        }
        for x in 0..out_width {
            let (first, weights) = taps.of(x);
            let columns = &columns[first..first + weights.len()];
            let mut sums = [HALF; SPAN];
            for k in 0..weights.len() {
                add_weighted(&mut sums, &columns[k], weights[k]);
            }
            resized[x] = to_samples(&sums);
        }
        for lane in 0..rows {
            for x in 0..out_width {
                let pixel = &resized[x][4 * lane..4 * lane + 4];
                let place = &mut line[CHANNELS * x..CHANNELS * x + 4];
                (place[0], place[1], place[2], place[3]) = (pixel[0], pixel[1], pixel[2], pixel[3]);
            }
            let start = (first_row + lane) * out_width * CHANNELS;
            out[start..start + out_width * CHANNELS].copy_from_slice(&line[..out_width * CHANNELS]);
        }
    }
}

multiversion! {
    /// `out[y, x] = Σ weight · source[first + k, x]`, for all columns of `source`.
    pub(super) fn vertical(source: &PixelView, taps: &Taps, out: &mut [u8]) = vertical_body;
}

/// Resizes [`SPAN`] columns at once.
#[inline(always)]
pub(super) fn vertical_body(source: &PixelView, taps: &Taps, out: &mut [u8]) {
    let length = source.width * CHANNELS;
    for y in 0..taps.len() {
        let (first, weights) = taps.of(y);
        let rows = &source.samples[first * source.stride..];
        let out = &mut out[y * length..(y + 1) * length];
        let mut at = 0;
        while at < length && length >= SPAN {
            // The last span overlaps the one before it.
            at = at.min(length - SPAN);
            let mut sums = [HALF; SPAN];
            for k in 0..weights.len() {
                add_weighted(&mut sums, &rows[k * source.stride + at..], weights[k]);
            }
            out[at..at + SPAN].copy_from_slice(&to_samples(&sums));
            at += SPAN;
        }
        for at in at..length {
            let mut sum = HALF;
            for k in 0..weights.len() {
                sum = sum.wrapping_add(i32::from(rows[k * source.stride + at]) * weights[k]);
            }
            out[at] = to_sample(sum);
        }
    }
}
