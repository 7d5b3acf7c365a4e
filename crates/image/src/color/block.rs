//! Pixels in blocks of fixed size with the channels apart: the shape in which the compiler turns
//! plain loops into vector instructions.
//!
//! Loops over lanes count from 0 to a constant and call only what is always inlined: iterator
//! adapters and closures are compiled without the caller's instruction set and left as calls.

use crate::raster::CHANNELS;

/// Pixels in a block.
pub(crate) const LANES: usize = 32;

/// One channel of a block.
pub(crate) type ChannelBlock = [u8; LANES];

/// Samples of a block.
const SAMPLES: usize = LANES * CHANNELS;

/// Operation on a block, whatever its place in the picture.
pub(crate) trait BlockOperation {
    /// Changes red, green and blue. Implementations are `#[inline(always)]`.
    fn apply(&self, rgb: &mut [ChannelBlock; CHANNELS]);
}

/// Applies `operation` to all pixels, compiled for the best instruction set of this CPU.
pub(crate) fn for_each_block<O: BlockOperation>(pixels: &mut [u8], operation: &O) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn avx2<O: BlockOperation>(pixels: &mut [u8], operation: &O) {
            for_each_block_body(pixels, operation);
        }
        // SAFETY: the line above proved that this CPU has AVX2.
        return unsafe { avx2(pixels, operation) };
    }
    for_each_block_body(pixels, operation);
}

/// The last block is padded with black.
#[inline(always)]
pub(crate) fn for_each_block_body<O: BlockOperation>(pixels: &mut [u8], operation: &O) {
    let (blocks, tail) = pixels.as_chunks_mut::<SAMPLES>();
    for block in blocks {
        apply_to_samples(block, operation);
    }
    let mut padded = [0; SAMPLES];
    padded[..tail.len()].copy_from_slice(tail);
    apply_to_samples(&mut padded, operation);
    tail.copy_from_slice(&padded[..tail.len()]);
}

#[inline(always)]
fn apply_to_samples<O: BlockOperation>(block: &mut [u8; SAMPLES], operation: &O) {
    let mut rgb = channels(block);
    operation.apply(&mut rgb);
    for lane in 0..LANES {
        block[CHANNELS * lane] = rgb[0][lane];
        block[CHANNELS * lane + 1] = rgb[1][lane];
        block[CHANNELS * lane + 2] = rgb[2][lane];
    }
}

/// Red, green and blue of a block, each on its own.
#[inline(always)]
fn channels(block: &[u8; SAMPLES]) -> [ChannelBlock; CHANNELS] {
    let mut rgb = [[0; LANES]; CHANNELS];
    for lane in 0..LANES {
        rgb[0][lane] = block[CHANNELS * lane];
        rgb[1][lane] = block[CHANNELS * lane + 1];
        rgb[2][lane] = block[CHANNELS * lane + 2];
    }
    rgb
}
