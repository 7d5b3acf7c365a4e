//! Prefetch of memory that is used next, while a product runs.

use std::ops::Range;

use super::output::SharedOutput;
use crate::gemm::epilogue::Epilogue;
use crate::gemm::matrix::{Elements, Mat};
use crate::gemm::product::Product;

/// Memory that is used next and prefetched meanwhile, so that its user waits for the nearer caches alone.
pub struct Prefetch {
    /// Address and length in words of each piece: addresses alone, nothing is read there.
    pieces: [(*const u32, usize); 3],
    /// Whether b's next panel, which is near, is not prefetched.
    pub skips_panels: bool,
}

impl Default for Prefetch {
    fn default() -> Prefetch {
        Prefetch::of([NOTHING; 3])
    }
}

/// No memory.
const NOTHING: (*const u32, usize) = (std::ptr::null(), 0);

impl Prefetch {
    fn of(pieces: [(*const u32, usize); 3]) -> Prefetch {
        Prefetch { pieces, skips_panels: false }
    }

    /// Prefetch of a chunk of a row-major b, and of an a that is the transpose of a row-major matrix.
    pub fn chunk(a: &Mat, b: &Mat, inner: Range<usize>) -> Prefetch {
        Prefetch::of([contiguous_rows(&a.t(), inner.clone()), contiguous_rows(b, inner), NOTHING])
    }

    /// Prefetch of the rows that the next job probably takes: of a row-major a where `a_is_packed`, of the epilogue's operand, and of the
    /// result.
    pub fn rows(a: &Mat, a_is_packed: bool, product: &Product, c: SharedOutput, rows: Range<usize>) -> Prefetch {
        let a = if a_is_packed { contiguous_rows(a, rows.clone()) } else { NOTHING };
        let range = rows.start * c.row_stride..rows.end * c.row_stride;
        let added = match product.epilogue {
            Epilogue::Add(x) | Epilogue::Residual { x, .. } | Epilogue::GeluDerivative(x) => {
                (x[range.clone()].as_ptr().cast(), range.len())
            }
            Epilogue::Identity | Epilogue::Gelu => NOTHING,
        };
        let added = if added.0 == a.0 { NOTHING } else { added };
        let c = match c.bf16 {
            true => (c.c.cast::<u16>().wrapping_add(range.start).cast_const().cast(), range.len() / 2),
            false => (c.c.wrapping_add(range.start).cast_const().cast(), range.len()),
        };
        Prefetch::of([a, added, c])
    }

    /// Prefetch of part i of n of memory that is read after the product. Few rows have no time for more: the next panel is not prefetched.
    pub fn share(all: &[f32], i: usize, n: usize) -> Prefetch {
        let share = &all[i * all.len() / n..(i + 1) * all.len() / n];
        Prefetch { pieces: [(share.as_ptr().cast(), share.len()), NOTHING, NOTHING], skips_panels: true }
    }

    /// Address of the next so many words.
    pub fn next(&mut self, words: usize) -> Option<*const u32> {
        let (from, left) = self.pieces.iter_mut().find(|(_, left)| *left > 0)?;
        let piece = *from;
        (*from, *left) = (from.wrapping_add(words), left.saturating_sub(words));
        Some(piece)
    }
}

/// Address and length in words of some rows, where the matrix is contiguous; nothing elsewhere.
fn contiguous_rows(mat: &Mat, rows: Range<usize>) -> (*const u32, usize) {
    let (first, floats) = (rows.start * mat.cols, rows.len() * mat.cols);
    match mat.data {
        _ if mat.col_stride != 1 || mat.row_stride != mat.cols => (std::ptr::null(), 0),
        Elements::F32(data) => (data[first..].as_ptr().cast(), floats),
        Elements::Bf16x2(words) => (words[first / 2..].as_ptr(), floats / 2),
    }
}
