//! Packed tokens: all crops of a step in one matrix, described by segments.

use std::sync::Arc;

use esvit_gpu::Recorder;

/// `images` equal grids of `height × width` tokens, one after the other, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of images.
    pub images: usize,
    /// Rows of the token grid.
    pub height: usize,
    /// Columns of the token grid.
    pub width: usize,
}

impl Segment {
    /// Tokens of one image.
    pub fn tokens_per_image(&self) -> usize {
        self.height * self.width
    }

    /// Tokens of the segment.
    pub fn tokens(&self) -> usize {
        self.images * self.tokens_per_image()
    }
}

/// The segments of a token matrix `[N, C]`, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout(Arc<[Segment]>);

impl Layout {
    /// A layout of these segments.
    pub fn new(segments: impl Into<Arc<[Segment]>>) -> Layout {
        Layout(segments.into())
    }

    /// The segments.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// N: tokens of all segments.
    pub fn tokens(&self) -> usize {
        self.0.iter().map(Segment::tokens).sum()
    }

    /// Images of all segments.
    pub fn images(&self) -> usize {
        self.0.iter().map(|s| s.images).sum()
    }

    /// Each image's first token and number of tokens, in order.
    pub fn image_ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let mut next = 0;
        self.0.iter().flat_map(|s| std::iter::repeat_n(s.tokens_per_image(), s.images)).map(move |tokens| {
            next += tokens;
            next - tokens..next
        })
    }

    /// Gives every token what `of_images` has for its image.
    pub fn spread(&self, of_images: &[f32], of_tokens: &mut [f32]) {
        self.image_ranges().zip(of_images).for_each(|(tokens, &value)| of_tokens[tokens].fill(value));
    }

    /// The layout after each segment's grid is changed.
    pub fn map(&self, grid: impl Fn(usize, usize) -> (usize, usize)) -> Layout {
        let segments = self.0.iter().map(|s| {
            let (height, width) = grid(s.height, s.width);
            Segment { images: s.images, height, width }
        });
        Layout(segments.collect())
    }

    /// The segments in order, cut so that no operand is larger than a binding may be; an image of a segment has `image_bytes` in
    /// the largest operand.
    pub(crate) fn pieces(&self, rec: &Recorder, image_bytes: impl Fn(&Segment) -> usize) -> Vec<Segment> {
        let cut = |s: &Segment| {
            rec.image_pieces(s.images, image_bytes(s)).into_iter().map(|piece| Segment { images: piece.len(), ..*s }).collect::<Vec<_>>()
        };
        self.segments().iter().flat_map(cut).collect()
    }
}
