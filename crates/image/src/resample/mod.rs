//! Crop and resize, bit for bit as Pillow's `Image.crop` followed by `Image.resize`.
//!
//! - Antialiased: when shrinking, the filter's support grows with the scale.
//! - One axis after the other, 8 bits in between; which first is [`vertical_first`]'s decision.
//! - Every output pixel depends on its own taps only, so a window of a resized picture is computed alone, from the rows and
//!   columns it reads: the rest is never made.
//!
//! Source: Pillow 13.0, `src/libImaging/Resample.c`.

mod passes;
mod taps;

use passes::{PixelView, horizontal, vertical};
pub use taps::ResampleFilter;
use taps::Taps;

use crate::error::ImageError;
use crate::limits::MAX_PIXELS;
use crate::raster::{CHANNELS, RgbImage, buffer_bytes, check_buffer};

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
/// Cuts `region` out of `image`, resizes it to `full` (width, height) and writes the part `window` of the result,
/// `[window.height, window.width, 3]`, to `out`.
///
/// # Errors
/// [`ImageError::Plan`] naming the field when the region is empty or leaves the image, [`ImageError::Buffer`] when `out` has
/// another length than the window's, or when the picture between the two passes would be larger than the largest image that is
/// decoded (a strip of extreme aspect, stretched).
pub(crate) fn resample(
    image: &RgbImage,
    region: Region,
    full: (u32, u32),
    window: Region,
    filter: ResampleFilter,
    out: &mut [u8],
) -> Result<(), ImageError> {
    check_region(image, region)?;
    check_buffer(window.width, window.height, out.len())?;
    debug_assert!(window.left + window.width <= full.0 && window.top + window.height <= full.1, "the window lies in the resized box");
    let mut across = Taps::new(region.width, full.0, window.left..window.left + window.width, filter);
    let mut down = Taps::new(region.height, full.1, window.top..window.top + window.height, filter);
    let (columns, rows) = (across.trim(), down.trim());
    let first_pixel = (region.top as usize + rows.start) * image.width() as usize + region.left as usize + columns.start;
    let source = PixelView {
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
        horizontal(&PixelView { samples: &between, stride: width * CHANNELS, width, height }, &across, out);
    } else {
        horizontal(&source, &across, &mut between);
        vertical(&PixelView { samples: &between, stride: width * CHANNELS, width, height }, &down, out);
    }
    Ok(())
}

/// Decides whether the columns are resized before the rows: when that takes away more than twice as many rows as the
/// other pass takes columns. The order shows, by some levels where the first pass clips.
///
/// Pillow 13.0's rule, found by comparison with it on random sizes; earlier versions always
/// begin horizontally.
fn vertical_first(from: (u32, u32), to: (u32, u32)) -> bool {
    let lost = |from: u32, to: u32| from.saturating_sub(to);
    u64::from(lost(from.1, to.1)) > 2 * u64::from(lost(from.0, to.0))
}

/// Returns an error naming the field unless `region` lies in `image` and is not empty.
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

#[cfg(test)]
mod tests {
    use super::passes::{HALF, horizontal_body, vertical_body};
    use super::taps::PRECISION_BITS;
    use super::*;

    /// The whole of `region`, resized.
    fn resized(image: &RgbImage, region: Region, width: u32, height: u32, filter: ResampleFilter) -> Result<Vec<u8>, ImageError> {
        windowed(image, region, (width, height), Region { left: 0, top: 0, width, height }, filter)
    }

    fn windowed(image: &RgbImage, region: Region, full: (u32, u32), window: Region, filter: ResampleFilter) -> Result<Vec<u8>, ImageError> {
        let mut out = vec![0; buffer_bytes(window.width, window.height) as usize];
        resample(image, region, full, window, filter, &mut out)?;
        Ok(out)
    }

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

    /// The plain reference: the module's comment, sample by sample.
    fn blackboard(image: &RgbImage, region: Region, out_width: u32, out_height: u32, filter: ResampleFilter) -> Vec<u8> {
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
            for filter in [ResampleFilter::Bicubic, ResampleFilter::Bilinear] {
                let image = noise(width + 3, height + 2);
                let region = Region { left: 2, top: 1, width, height };
                let wanted = blackboard(&image, region, out_width, out_height, filter);
                let got = resized(&image, region, out_width, out_height, filter).unwrap();
                assert_eq!(got, wanted, "{region:?} to {out_width} x {out_height}, {filter:?}");
            }
        }
    }

    #[test]
    fn the_plain_build_gives_the_same_bytes() {
        let image = noise(45, 37);
        let view = PixelView { samples: image.pixels(), stride: 45 * CHANNELS, width: 45, height: 37 };
        for side in [3, 11, 60] {
            let (across, down) =
                (Taps::new(45, side, 0..side, ResampleFilter::Bicubic), Taps::new(37, side, 0..side, ResampleFilter::Bicubic));
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
        // Both orders of the passes, enlarging and shrinking, windows inside and at every edge.
        for (width, height, full) in [(61, 37, (52, 32)), (30, 300, (64, 640)), (300, 30, (640, 64)), (40, 200, (20, 31)), (9, 9, (9, 9))] {
            let image = noise(width, height);
            let region = Region { left: 0, top: 0, width, height };
            for filter in [ResampleFilter::Bicubic, ResampleFilter::Bilinear] {
                let whole = resized(&image, region, full.0, full.1, filter).unwrap();
                for (left, top) in [(0, 0), ((full.0 - 8) / 3, (full.1 - 7) / 3), (full.0 - 8, full.1 - 7)] {
                    let window = Region { left, top, width: 8, height: 7 };
                    let got = windowed(&image, region, full, window, filter).unwrap();
                    for (y, row) in got.chunks_exact(8 * CHANNELS).enumerate() {
                        let start = ((top as usize + y) * full.0 as usize + left as usize) * CHANNELS;
                        assert_eq!(row, &whole[start..start + 8 * CHANNELS], "{width} x {height} to {full:?}, {window:?}, row {y}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_strip_costs_no_more_than_its_window() {
        // The whole picture would be 25 600 000 x 256 pixels.
        let strip = RgbImage::new(100_000, 1, vec![7; 300_000]).unwrap();
        let region = Region { left: 0, top: 0, width: 100_000, height: 1 };
        let window = Region { left: 12_799_888, top: 16, width: 224, height: 224 };
        let crop = windowed(&strip, region, (25_600_000, 256), window, ResampleFilter::Bicubic).unwrap();
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
            match resized(&image, region, 4, 4, ResampleFilter::Bilinear) {
                Err(ImageError::Plan { field: got, .. }) => assert_eq!(got, field),
                other => panic!("{region:?} gave {other:?}"),
            }
        }
    }
}
