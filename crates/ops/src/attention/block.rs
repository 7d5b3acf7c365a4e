//! A block of queries: sizes, steps and results that both precisions share.

use std::ops::Range;

use esvit_simd::panel::padded;

use super::geometry::{AttentionGeometry, QueryGroup};
use super::operands::AttentionHead;

/// Queries of a block: their scores with all keys stay in the second-level cache.
pub(super) const BLOCK: usize = 64;
/// Sizes of the largest groups' tiles.
#[derive(Clone, Copy)]
pub(super) struct BlockSizes {
    /// Queries of a block.
    pub rows: usize,
    /// Keys of a group.
    pub keys: usize,
    /// Scores of a block with padded keys: one group has many queries, another (a global token's) many keys.
    pub scores: usize,
    /// D: channels of a head.
    pub d: usize,
}

impl BlockSizes {
    /// Sizes of all tiles of heads with `d` channels.
    pub fn of(geometry: &AttentionGeometry, d: usize) -> BlockSizes {
        let rows = |g: &QueryGroup| g.queries.len().min(BLOCK);
        let scores = geometry.most(|g| rows(g) * padded(g.keys.len()));
        BlockSizes { rows: geometry.most(rows), keys: geometry.most(|g| g.keys.len()), scores, d }
    }
}

/// Results of a block of queries, rows of `D` padded to whole half registers.
pub(super) struct BlockResults<'t> {
    /// `[queries, Dp]`, forward.
    pub y: &'t [f32],
    /// `[queries, Dp]`, without its factor.
    pub dq: &'t [f32],
    /// Factor that dq is still to be multiplied with.
    pub dq_factor: f32,
    /// `[keys, Dp]`, added up over the blocks since [`QueryBlock::keys`].
    pub dk: &'t [f32],
    /// `[keys, Dp]`, likewise.
    pub dv: &'t [f32],
}

/// The tiles of a block of queries and all keys of their group, in one precision.
pub(super) trait QueryBlock<'s> {
    /// Floats of all tiles.
    fn floats(sizes: &BlockSizes, backward: bool) -> usize;

    /// Tiles in scratch memory of that many floats.
    fn new(scratch: &'s mut [f32], sizes: &BlockSizes, backward: bool) -> Self;

    /// Gathers keys and values of a group.
    fn keys(&mut self, head: &AttentionHead, group: &QueryGroup, backward: bool);

    /// Computes `y`, and the logarithm of each query's sum.
    fn forward(&mut self, head: &AttentionHead, group: &QueryGroup, block: Range<usize>, bias: Option<&[f32]>, log_sums: &mut [f32]);

    /// Computes `dq` from `dy` (with its first column), adds to `dk` and `dv`, and to the gradient of the head's bias where there is one.
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &mut self,
        head: &AttentionHead,
        group: &QueryGroup,
        block: Range<usize>,
        bias: Option<&[f32]>,
        dy: (&[f32], usize),
        log_sums: &[f32],
        dbias: &mut [f32],
    );

    /// Results of the last block.
    fn results(&self, d: usize) -> BlockResults<'_>;
}
