//! Blends with black, with the mean gray and with the own gray; gray, solarize, mirror.
//!
//! - A factor blends: 0 gives the degenerate picture, 1 the picture itself, above 1 goes on in
//!   that direction. `f32` arithmetic, truncated and clipped, as `Image.blend`.
//! - Gray is `(19595 R + 38470 G + 7471 B + 2¹⁵) >> 16`, as Pillow's conversion to `L`.
//!
//! Source: Pillow, `Blend.c`, `Convert.c`, `ImageEnhance.py`, `ImageOps.py`.

use crate::color::block::{BlockOperation, ChannelBlock, LANES, for_each_block};
use crate::raster::CHANNELS;

/// Pillow's `L` of each pixel.
#[inline(always)]
fn luma([red, green, blue]: &[ChannelBlock; CHANNELS]) -> ChannelBlock {
    let mut gray = [0; LANES];
    for lane in 0..LANES {
        let (r, g, b) = (u32::from(red[lane]), u32::from(green[lane]), u32::from(blue[lane]));
        gray[lane] = ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8;
    }
    gray
}

/// `degenerate + factor · (sample − degenerate)`, truncated and clipped.
#[inline(always)]
fn blend(degenerate: &ChannelBlock, samples: &mut ChannelBlock, factor: f32) {
    for lane in 0..LANES {
        let from = f32::from(degenerate[lane]);
        let mixed = from + factor * (f32::from(samples[lane]) - from);
        #[expect(clippy::manual_clamp, reason = "`clamp` would let a NaN through to the cast")]
        let clipped = mixed.max(0.0).min(255.0);
        // SAFETY: between 0 and 255, and not NaN: `max` gives its argument for one.
        samples[lane] = unsafe { clipped.to_int_unchecked::<i32>() } as u8;
    }
}

/// Blends every sample with one level.
struct BlendWith {
    level: u8,
    factor: f32,
}

impl BlockOperation for BlendWith {
    #[inline(always)]
    fn apply(&self, rgb: &mut [ChannelBlock; CHANNELS]) {
        for samples in rgb {
            blend(&[self.level; LANES], samples, self.factor);
        }
    }
}

/// Blends every pixel with its gray.
struct BlendWithLuma {
    factor: f32,
}

impl BlockOperation for BlendWithLuma {
    #[inline(always)]
    fn apply(&self, rgb: &mut [ChannelBlock; CHANNELS]) {
        let gray = luma(rgb);
        for samples in rgb {
            blend(&gray, samples, self.factor);
        }
    }
}

/// Puts the gray into all channels.
struct ReplaceByLuma;

impl BlockOperation for ReplaceByLuma {
    #[inline(always)]
    fn apply(&self, rgb: &mut [ChannelBlock; CHANNELS]) {
        *rgb = [luma(rgb); CHANNELS];
    }
}

/// Blends with black.
pub fn brightness(pixels: &mut [u8], factor: f32) {
    for_each_block(pixels, &BlendWith { level: 0, factor });
}

/// Blends with the picture's mean gray, rounded to a level.
pub fn contrast(pixels: &mut [u8], factor: f32) {
    let mut gray = pixels.to_vec();
    grayscale(&mut gray);
    // All three channels are equal, so the mean of the samples is the mean of the pixels.
    let sum: u64 = gray.chunks(1 << 16).map(|part| part.iter().map(|&v| u32::from(v)).sum::<u32>()).map(u64::from).sum();
    let mean = sum as f64 / gray.len() as f64;
    for_each_block(pixels, &BlendWith { level: (mean + 0.5) as u8, factor });
}

/// Blends each pixel with its own gray.
pub fn saturation(pixels: &mut [u8], factor: f32) {
    for_each_block(pixels, &BlendWithLuma { factor });
}

/// All three channels become the pixel's gray.
pub fn grayscale(pixels: &mut [u8]) {
    for_each_block(pixels, &ReplaceByLuma);
}

/// Inverts samples at or above `threshold`; 256 changes nothing.
pub fn solarize(pixels: &mut [u8], threshold: u16) {
    for sample in pixels {
        *sample = if u16::from(*sample) < threshold { *sample } else { !*sample };
    }
}

/// Mirrors left and right, rows of `width` pixels.
pub fn flip_horizontal(pixels: &mut [u8], width: u32) {
    for row in pixels.chunks_exact_mut(width as usize * CHANNELS) {
        row.as_chunks_mut::<CHANNELS>().0.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::block::for_each_block_body;

    /// Not a whole number of blocks.
    fn every_level() -> Vec<u8> {
        (0..=255).chain(0..5).flat_map(|v: u8| [v, 255 - v, v.wrapping_mul(7)]).collect()
    }

    fn gray([r, g, b]: [u8; 3]) -> u8 {
        ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
    }

    /// `Image.blend` for one sample.
    fn blackboard(degenerate: u8, sample: u8, factor: f32) -> u8 {
        (f32::from(degenerate) + factor * (f32::from(sample) - f32::from(degenerate))).clamp(0.0, 255.0) as u8
    }

    #[test]
    fn both_builds_equal_the_blackboard() {
        let pixels = every_level();
        let grays: Vec<u8> = pixels.as_chunks().0.iter().map(|&pixel| gray(pixel)).collect();
        let mean = grays.iter().map(|&v| f64::from(v)).sum::<f64>() / grays.len() as f64;
        let mean = (mean + 0.5) as u8;
        for factor in [0.0, 0.3, 0.6, 1.0, 1.37, 5.0, f32::MAX] {
            let wanted = |degenerate: &dyn Fn(usize) -> u8| -> Vec<u8> {
                pixels.iter().enumerate().map(|(i, &v)| blackboard(degenerate(i / CHANNELS), v, factor)).collect()
            };
            let check = |name: &str, wanted: Vec<u8>, fast: fn(&mut [u8], f32), plain: &dyn Fn(&mut [u8])| {
                let (mut by_fast, mut by_plain) = (pixels.clone(), pixels.clone());
                fast(&mut by_fast, factor);
                plain(&mut by_plain);
                assert_eq!(by_fast, wanted, "{name} {factor}");
                assert_eq!(by_plain, wanted, "plain build, {name} {factor}");
            };
            let blend_with = |level| move |pixels: &mut [u8]| for_each_block_body(pixels, &BlendWith { level, factor });
            check("brightness", wanted(&|_| 0), brightness, &blend_with(0));
            check("contrast", wanted(&|_| mean), contrast, &blend_with(mean));
            check("saturation", wanted(&|i| grays[i]), saturation, &|pixels| {
                for_each_block_body(pixels, &BlendWithLuma { factor });
            });
        }
        let mut gray = pixels.clone();
        grayscale(&mut gray);
        let wanted: Vec<u8> = grays.iter().flat_map(|&gray| [gray; CHANNELS]).collect();
        assert_eq!(gray, wanted);
    }

    #[test]
    fn solarize_inverts_from_the_threshold_on() {
        let mut pixels = vec![0, 127, 128, 255];
        solarize(&mut pixels, 128);
        assert_eq!(pixels, [0, 127, 127, 0]);
        solarize(&mut pixels, 256);
        assert_eq!(pixels, [0, 127, 127, 0]);
    }

    #[test]
    fn flip_mirrors_pixels_not_samples() {
        let mut pixels = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        flip_horizontal(&mut pixels, 2);
        assert_eq!(pixels, [4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9]);
    }
}
