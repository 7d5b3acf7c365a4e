//! Crop and resize, bit for bit as Pillow's `Image.crop` followed by `Image.resize`.
//!
//! - Antialiased: when shrinking, the filter's support grows with the scale.
//! - One axis after the other, 8 bits in between; which first is [`vertical_first`]'s decision.
//! - Weights are normalized in f64, then rounded to 22 fractional bits; sums start at one half and are
//!   shifted down. Integers in any order of addition, so every build gives the same bytes.
//!
//! Every output pixel depends on its own taps only, so a window of a resized picture can be
//! computed alone: [`resize_shorter_side_then_center_crop`] never makes the rest.
//!
//! Source: Pillow 13.0, `src/libImaging/Resample.c`; torchvision, `_compute_resized_output_size` and
//! `center_crop`.

use std::ops::Range;

use serde::Deserialize;

use crate::decode::MAX_PIXELS;
use crate::dispatch::multiversion;
use crate::error::ImageError;
use crate::raster::{CHANNELS, RgbImage, buffer_bytes, check_buffer};

/// Fractional bits of a weight: 32 less 8 for the sample and 2 for sums beyond 1 and the sign.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Samples either pass sums up at once: four registers of AVX2.
const SPAN: usize = 32;
/// Rows the horizontal pass works on at once: each takes four lanes of a span, the last unused.
const ROWS: usize = SPAN / 4;

/// Interpolation kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// Keys' cubic with a = -0.5, support 2.
    Bicubic,
    /// Triangle, support 1.
    Bilinear,
}

impl Filter {
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

/// A box of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
}

/// The input positions one output position reads.
struct Span {
    /// First input position.
    first: usize,
    /// Place of the weights in [`Taps::weights`], one for each position from `first` on.
    weights: Range<usize>,
}

/// For each output position of one axis, the input positions it reads and their weights.
struct Taps {
    spans: Vec<Span>,
    weights: Vec<i32>,
}

impl Taps {
    /// The positions `window` of an axis of `input` samples resized to `output`.
    fn new(input: u32, output: u32, window: Range<u32>, filter: Filter) -> Self {
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
            spans.push(Span { first: first as usize, weights: weights.len()..weights.len() + exact.len() });
            weights.extend(exact.iter().map(|&weight| {
                let scaled = (if sum == 0.0 { weight } else { weight / sum }) * f64::from(1 << PRECISION_BITS);
                (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
            }));
        }
        Self { spans, weights }
    }

    /// The input positions read, from the first to the last; the spans then count from the first.
    fn trim(&mut self) -> Range<usize> {
        let start = self.spans.iter().map(|span| span.first).min().unwrap_or(0);
        let end = self.spans.iter().map(|span| span.first + span.weights.len()).max().unwrap_or(0);
        for span in &mut self.spans {
            span.first -= start;
        }
        start..end
    }

    /// Output positions.
    #[inline(always)]
    fn len(&self) -> usize {
        self.spans.len()
    }

    /// First input position and weights of one output position.
    #[inline(always)]
    fn of(&self, position: usize) -> (usize, &[i32]) {
        let span = &self.spans[position];
        (span.first, &self.weights[span.weights.start..span.weights.end])
    }
}

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
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Cuts `region` out of `image` and resizes it to `[out_height, out_width, 3]`.
///
/// # Errors
/// [`ImageError::Plan`] naming the field when the region is empty or leaves the image or an
/// output side is 0, [`ImageError::Buffer`] when the picture between the two passes would be larger
/// than the largest image that is decoded (a strip of extreme aspect, stretched).
pub fn resized_crop(image: &RgbImage, region: Region, out_width: u32, out_height: u32, filter: Filter) -> Result<Vec<u8>, ImageError> {
    let window = Region { left: 0, top: 0, width: out_width, height: out_height };
    let mut out = vec![0; buffer_bytes(out_width, out_height) as usize];
    resample(image, region, (out_width, out_height), window, filter, &mut out)?;
    Ok(out)
}

/// The evaluation transform: the whole image resized so that its shorter side is `resize`, then
/// the center of `crop` x `crop`. Result `[crop, crop, 3]`.
///
/// The longer side becomes `floor(resize · long / short)`; an odd margin is halved to the nearest
/// even number, as Python's `round` does.
///
/// # Errors
/// [`ImageError::Plan`] unless `1 <= crop <= resize`, [`ImageError::Buffer`] as in [`resized_crop`].
pub fn resize_shorter_side_then_center_crop(image: &RgbImage, resize: u32, crop: u32, filter: Filter) -> Result<Vec<u8>, ImageError> {
    if crop == 0 || crop > resize {
        return Err(ImageError::Plan { field: "crop".into(), want: format!("from 1 to resize ({resize})"), got: crop.to_string() });
    }
    let short = image.width().min(image.height());
    let side = |length: u32| {
        if length == short { resize } else { (f64::from(resize) * f64::from(length) / f64::from(short)) as u32 }
    };
    let full = (side(image.width()), side(image.height()));
    let margin = |length: u32| (f64::from(length - crop) / 2.0).round_ties_even() as u32;
    let window = Region { left: margin(full.0), top: margin(full.1), width: crop, height: crop };
    let whole = Region { left: 0, top: 0, width: image.width(), height: image.height() };
    let mut out = vec![0; buffer_bytes(crop, crop) as usize];
    resample(image, whole, full, window, filter, &mut out)?;
    Ok(out)
}

/// Resizes `region` to `full` (width, height) and writes the part `window` of the result.
pub(crate) fn resample(
    image: &RgbImage,
    region: Region,
    full: (u32, u32),
    window: Region,
    filter: Filter,
    out: &mut [u8],
) -> Result<(), ImageError> {
    check_region(image, region)?;
    check_buffer(window.width, window.height, out.len())?;
    let mut across = Taps::new(region.width, full.0, window.left..window.left + window.width, filter);
    let mut down = Taps::new(region.height, full.1, window.top..window.top + window.height, filter);
    let (columns, rows) = (across.trim(), down.trim());
    let first_pixel = (region.top as usize + rows.start) * image.width() as usize + region.left as usize + columns.start;
    let source = View {
        samples: &image.pixels()[first_pixel * CHANNELS..],
        stride: image.width() as usize * CHANNELS,
        width: columns.len(),
        height: rows.len(),
    };

    let vertical_first = vertical_first((region.width, region.height), full);
    let (width, height) = match vertical_first {
        true => (columns.len() as u32, window.height),
        false => (window.width, rows.len() as u32),
    };
    let (want, most) = (buffer_bytes(width, height), buffer_bytes(MAX_PIXELS as u32, 1));
    if want > most {
        return Err(ImageError::Buffer { width, height, want, got: most });
    }
    let mut between = vec![0; want as usize]; // [height, width, 3]
    let (width, height) = (width as usize, height as usize);
    if vertical_first {
        vertical(&source, &down, &mut between);
        horizontal(&View { samples: &between, stride: width * CHANNELS, width, height }, &across, out);
    } else {
        horizontal(&source, &across, &mut between);
        vertical(&View { samples: &between, stride: width * CHANNELS, width, height }, &down, out);
    }
    Ok(())
}

/// Whether the columns are resized before the rows: when that takes away more than twice as many
/// rows as the other pass takes columns. The order shows, by some levels where the first pass clips.
///
/// Pillow 13.0's rule, found by comparison with it on random sizes; earlier versions always
/// begin horizontally.
fn vertical_first(from: (u32, u32), to: (u32, u32)) -> bool {
    let lost = |from: u32, to: u32| from.saturating_sub(to);
    u64::from(lost(from.1, to.1)) > 2 * u64::from(lost(from.0, to.0))
}

/// An error naming the field unless `region` lies in `image` and is not empty.
pub(crate) fn check_region(image: &RgbImage, region: Region) -> Result<(), ImageError> {
    let axes = [("left", "width", region.left, region.width, image.width()), ("top", "height", region.top, region.height, image.height())];
    for (start_name, length_name, start, length, side) in axes {
        let error = |field: &str, want: String, got: u32| Err(ImageError::Plan { field: field.into(), want, got: got.to_string() });
        if start >= side {
            return error(start_name, format!("below the image's {length_name} of {side}"), start);
        }
        if length == 0 || length > side - start {
            return error(length_name, format!("from 1 to {}, what the image has from {start}", side - start), length);
        }
    }
    Ok(())
}

/// A part of a picture: `height` rows of `width` pixels that begin `stride` samples apart.
struct View<'a> {
    samples: &'a [u8],
    stride: usize,
    width: usize,
    height: usize,
}

impl View<'_> {
    #[inline(always)]
    fn row(&self, row: usize) -> &[u8] {
        &self.samples[row * self.stride..][..self.width * CHANNELS]
    }
}

multiversion! {
    /// `out[y, x] = Σ weight · source[y, first + k]`, for all rows of `source`.
    fn horizontal(source: &View, taps: &Taps, out: &mut [u8]) = horizontal_body;
}

/// [`ROWS`] rows at once, laid out column by column before and after: so a tap is whole registers
/// times one weight.
#[inline(always)]
fn horizontal_body(source: &View, taps: &Taps, out: &mut [u8]) {
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
    fn vertical(source: &View, taps: &Taps, out: &mut [u8]) = vertical_body;
}

#[inline(always)]
fn vertical_body(source: &View, taps: &Taps, out: &mut [u8]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a pattern a filter could hide behind.
    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = 0x9e37_79b9_u32 ^ (width << 16) ^ height;
        let pixels = (0..buffer_bytes(width, height)).map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 24) as u8
        });
        RgbImage::new(width, height, pixels.collect()).unwrap()
    }

    /// One pass over one axis for one sample; `at(k)` reads input position `k`.
    fn weigh(first: usize, weights: &[i32], at: &dyn Fn(usize) -> u8) -> u8 {
        let sum: i32 = weights.iter().zip(first..).map(|(&weight, k)| weight * i32::from(at(k))).sum();
        ((sum + HALF) >> PRECISION_BITS).clamp(0, 255) as u8
    }

    /// What the module's comment says.
    fn blackboard(image: &RgbImage, region: Region, out_width: u32, out_height: u32, filter: Filter) -> Vec<u8> {
        let across = Taps::new(region.width, out_width, 0..out_width, filter);
        let down = Taps::new(region.height, out_height, 0..out_height, filter);
        let at = |x: usize, y: usize, c: usize| {
            let (x, y) = (region.left as usize + x, region.top as usize + y);
            image.pixels()[(y * image.width() as usize + x) * CHANNELS + c]
        };
        let columns_first = vertical_first((region.width, region.height), (out_width, out_height));
        let mut out = Vec::new();
        for (top, down) in (0..down.len()).map(|y| down.of(y)) {
            for (left, across) in (0..across.len()).map(|x| across.of(x)) {
                for c in 0..CHANNELS {
                    out.push(if columns_first {
                        weigh(left, across, &|x| weigh(top, down, &|y| at(x, y, c)))
                    } else {
                        weigh(top, down, &|y| weigh(left, across, &|x| at(x, y, c)))
                    });
                }
            }
        }
        out
    }

    #[test]
    fn both_builds_equal_the_blackboard() {
        // Enlarging, shrinking in both orders, one of each, no change, single rows and columns, and
        // widths on both sides of the span of 32 samples.
        let cases =
            [(9, 7, 20, 15), (40, 33, 11, 10), (20, 60, 11, 10), (33, 5, 6, 19), (8, 8, 8, 8), (1, 1, 3, 2), (50, 1, 1, 5), (2, 64, 43, 1)];
        for (width, height, out_width, out_height) in cases {
            for filter in [Filter::Bicubic, Filter::Bilinear] {
                let image = noise(width + 3, height + 2);
                let region = Region { left: 2, top: 1, width, height };
                let wanted = blackboard(&image, region, out_width, out_height, filter);
                let got = resized_crop(&image, region, out_width, out_height, filter).unwrap();
                assert_eq!(got, wanted, "{region:?} to {out_width} x {out_height}, {filter:?}");
            }
        }
    }

    #[test]
    fn the_plain_build_gives_the_same_bytes() {
        let image = noise(45, 37);
        let view = View { samples: image.pixels(), stride: 45 * CHANNELS, width: 45, height: 37 };
        for side in [3, 11, 60] {
            let (across, down) = (Taps::new(45, side, 0..side, Filter::Bicubic), Taps::new(37, side, 0..side, Filter::Bicubic));
            let mut fast = vec![0; buffer_bytes(side, 37) as usize];
            let mut plain = fast.clone();
            horizontal(&view, &across, &mut fast);
            horizontal_body(&view, &across, &mut plain);
            assert_eq!(fast, plain, "45 to {side} columns");
            let mut fast = vec![0; buffer_bytes(45, side) as usize];
            let mut plain = fast.clone();
            vertical(&view, &down, &mut fast);
            vertical_body(&view, &down, &mut plain);
            assert_eq!(fast, plain, "37 to {side} rows");
        }
    }

    #[test]
    fn the_order_is_pillows() {
        // Each pair straddles a change observed in Pillow 13.0.
        for (from, to, wanted) in [
            ((100, 140), (60, 60), false),
            ((100, 142), (60, 60), true),
            ((100, 170), (60, 90), false),
            ((100, 172), (60, 90), true),
            ((100, 60), (120, 60), false),
            ((100, 62), (120, 60), true),
        ] {
            assert_eq!(vertical_first(from, to), wanted, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn a_window_is_a_part_of_the_whole() {
        let image = noise(61, 37);
        let region = Region { left: 0, top: 0, width: 61, height: 37 };
        let whole = resized_crop(&image, region, 52, 32, Filter::Bicubic).unwrap();
        let crop = resize_shorter_side_then_center_crop(&image, 32, 20, Filter::Bicubic).unwrap();
        // floor(32 · 61 / 37) = 52; margins 16 and 6.
        for (y, row) in crop.chunks_exact(20 * CHANNELS).enumerate() {
            let start = ((6 + y) * 52 + 16) * CHANNELS;
            assert_eq!(row, &whole[start..start + 20 * CHANNELS], "row {y}");
        }
    }

    #[test]
    fn a_strip_costs_no_more_than_its_window() {
        // The whole picture would be 25 600 000 x 256 pixels.
        let strip = RgbImage::new(100_000, 1, vec![7; 300_000]).unwrap();
        let crop = resize_shorter_side_then_center_crop(&strip, 256, 224, Filter::Bicubic).unwrap();
        assert!(crop.iter().all(|&sample| sample == 7));
    }

    #[test]
    fn a_region_outside_is_named() {
        let image = noise(10, 10);
        let region = |left, top, width, height| Region { left, top, width, height };
        for (region, field) in [
            (region(10, 0, 1, 1), "left"),
            (region(0, 11, 1, 1), "top"),
            (region(4, 0, 7, 1), "width"),
            (region(0, 0, 1, 0), "height"),
            (region(1, 1, u32::MAX, 1), "width"),
        ] {
            match resized_crop(&image, region, 4, 4, Filter::Bilinear) {
                Err(ImageError::Plan { field: got, .. }) => assert_eq!(got, field),
                other => panic!("{region:?} gave {other:?}"),
            }
        }
    }
}
