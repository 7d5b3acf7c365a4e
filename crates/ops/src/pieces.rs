//! Packed tokens, cut for a GPU.

use esvit_gpu::Recorder;

use crate::{Layout, Segment};

impl Layout {
    /// The segments in order, cut so that no operand is larger than a binding may be; an image of a segment has `image_bytes` in
    /// the largest operand.
    pub(crate) fn pieces(&self, rec: &Recorder, image_bytes: impl Fn(&Segment) -> usize) -> Vec<Segment> {
        let cut = |s: &Segment| {
            rec.image_pieces(s.images, image_bytes(s)).into_iter().map(|piece| Segment { images: piece.len(), ..*s }).collect::<Vec<_>>()
        };
        self.segments().iter().flat_map(cut).collect()
    }
}
