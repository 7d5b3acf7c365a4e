//! Geometry of everything that slides over a grid: convolutions and pooling.

use esvit_gpu::Recorder;
use esvit_graph::{Error, Result};

use crate::{Layout, Segment};

/// A square window of `kernel` taps a side that moves by `stride` over a grid with `padding` more tokens on every side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Taps of a side.
    pub kernel: usize,
    /// Tokens from one output to the next.
    pub stride: usize,
    /// Tokens of padding on each side.
    pub padding: usize,
}

impl Filter {
    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Outputs along a side of `n` tokens; 0 where the kernel does not fit.
    pub fn side(&self, n: usize) -> usize {
        (n + 2 * self.padding).checked_sub(self.kernel).map_or(0, |room| room / self.stride + 1)
    }

    /// The grids of the result.
    pub fn output(&self, layout: &Layout) -> Layout {
        layout.map(|h, w| (self.side(h), self.side(w)))
    }

    /// Checks that the filter exists and fits into every grid.
    pub(crate) fn check(&self, op: &'static str, layout: &Layout) -> Result<()> {
        if self.kernel == 0 || self.stride == 0 {
            return Err(Error::Attribute { op, what: "kernel and stride must be at least 1".into() });
        }
        match layout.segments().iter().find(|s| self.side(s.height) == 0 || self.side(s.width) == 0) {
            None => Ok(()),
            Some(s) => {
                let Filter { kernel, padding, .. } = self;
                let what = format!("a kernel of {kernel} with padding {padding} does not fit into a grid of {}x{}", s.height, s.width);
                Err(Error::Attribute { op, what })
            }
        }
    }

    /// Token that output `o` sees through tap `k`, along a side of `n` tokens.
    pub(crate) fn input_of(&self, o: usize, k: usize, n: usize) -> Option<usize> {
        (o * self.stride + k).checked_sub(self.padding).filter(|&i| i < n)
    }

    /// Which of `n` outputs sees token `i` through tap `k`.
    pub(crate) fn output_of(&self, i: usize, k: usize, n: usize) -> Option<usize> {
        let at = (i + self.padding).checked_sub(k)?;
        (at % self.stride == 0 && at / self.stride < n).then_some(at / self.stride)
    }

    /// The taps through which output `o` sees one of `n` tokens.
    pub(crate) fn taps_inside(&self, o: usize, n: usize) -> std::ops::Range<usize> {
        let from = self.padding.saturating_sub(o * self.stride).min(self.kernel);
        from..(n + self.padding).saturating_sub(o * self.stride).clamp(from, self.kernel)
    }
}

/// Images of one grid before and after a filter, and where their tokens begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub images: usize,
    pub height: usize,
    pub width: usize,
    pub out_height: usize,
    pub out_width: usize,
    /// First token before the filter.
    pub first: usize,
    /// First token after it.
    pub out_first: usize,
}

impl Span {
    /// Tokens of an image before the filter.
    pub fn area(&self) -> usize {
        self.height * self.width
    }

    /// Tokens of an image after it.
    pub fn out_area(&self) -> usize {
        self.out_height * self.out_width
    }

    /// The segments of two layouts side by side.
    pub fn all(input: &Layout, output: &Layout) -> Vec<Span> {
        let (mut first, mut out_first) = (0, 0);
        let pair = |(a, b): (&Segment, &Segment)| {
            let span =
                Span { images: a.images, height: a.height, width: a.width, out_height: b.height, out_width: b.width, first, out_first };
            (first, out_first) = (first + a.tokens(), out_first + b.tokens());
            span
        };
        input.segments().iter().zip(output.segments()).map(pair).collect()
    }

    /// The span of some of the images.
    pub fn part(&self, images: std::ops::Range<usize>) -> Span {
        Span {
            images: images.len(),
            first: self.first + images.start * self.area(),
            out_first: self.out_first + images.start * self.out_area(),
            ..*self
        }
    }

    /// The span cut into pieces of images, each no larger than a binding may be; an image has `words` in the longest operand.
    pub fn pieces(&self, rec: &Recorder, words: usize) -> Vec<Span> {
        rec.image_pieces(self.images, 4 * words).into_iter().map(|images| self.part(images)).collect()
    }

    /// Rows of the tokens before the filter in a matrix of `cols` columns, as elements.
    pub fn rows(&self, cols: usize) -> std::ops::Range<usize> {
        self.first * cols..(self.first + self.images * self.area()) * cols
    }

    /// Rows of the tokens after the filter in a matrix of `cols` columns, as elements.
    pub fn out_rows(&self, cols: usize) -> std::ops::Range<usize> {
        self.out_first * cols..(self.out_first + self.images * self.out_area()) * cols
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_and_their_inverse_agree_at_every_border() {
        for (kernel, stride, padding) in [(1, 1, 0), (3, 1, 1), (3, 2, 1), (7, 4, 2), (7, 2, 3), (2, 3, 0), (5, 2, 4)] {
            let f = Filter { kernel, stride, padding };
            for n in 1..12 {
                let outputs = f.side(n);
                for o in 0..outputs {
                    let seen: Vec<usize> = (0..kernel).filter(|&k| f.input_of(o, k, n).is_some()).collect();
                    assert_eq!(seen, f.taps_inside(o, n).collect::<Vec<_>>(), "{f:?} at {o} of {n}");
                    for k in seen {
                        let i = f.input_of(o, k, n).unwrap();
                        assert_eq!(f.output_of(i, k, outputs), Some(o));
                    }
                }
            }
        }
    }
}
