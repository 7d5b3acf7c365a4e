//! Alignment of scratch memory to cache lines.

/// Floats of a cache line. Tiles and rows of scores begin with one: registers are then stored and loaded in one piece.
pub(crate) const ALIGN: usize = 16;

/// Floats from the first whole cache line on: up to [`ALIGN`] fewer.
pub(crate) fn aligned(floats: &mut [f32]) -> &mut [f32] {
    let start = floats.as_ptr().align_offset(4 * ALIGN).min(ALIGN).min(floats.len());
    &mut floats[start..]
}
