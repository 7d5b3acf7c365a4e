//! Operand b of products on one thread: lines scaled and packed in one pass, into memory of the caller.

#[cfg(target_arch = "x86_64")]
use super::blocked::OperandB;
#[cfg(target_arch = "x86_64")]
use super::blocked::blocking::{InnerBlocking, LANES, panels, per_step};
#[cfg(target_arch = "x86_64")]
use super::blocked::pack::pack_scaled_b;
use super::matrix::{Mat, MatMut};
use super::product::{Product, Rounding, check_shapes};
use crate::{Pool, cpu, lanes};

/// Operand b of products on one thread, scaled and packed into memory of the caller.
#[derive(Clone, Copy, Debug)]
pub struct PackedTile<'a> {
    /// Packed words; where products are those of the crate `gemm`, the scaled lines.
    words: &'a [f32],
    rounding: Rounding,
    k: usize,
    n: usize,
    /// Whether lines are columns, or rows.
    columns: bool,
}

impl<'a> PackedTile<'a> {
    /// Floats that a tile of k rows and n columns takes, at most.
    pub fn words(k: usize, n: usize) -> usize {
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() {
            return [1, 2].map(|per_step| InnerBlocking::new(k, per_step).words(n)).into_iter().max().unwrap_or(0);
        }
        k * n
    }

    /// Packs `b = diag(factors)·lines`, lines `[factors, length]` row by row.
    pub fn rows(lines: &[f32], factors: &[f32], rounding: Rounding, to: &'a mut [f32]) -> PackedTile<'a> {
        PackedTile::pack(lines, false, factors, rounding, to)
    }

    /// Packs `b = (diag(factors)·lines)ᵀ`, lines `[factors, length]` row by row.
    pub fn columns(lines: &[f32], factors: &[f32], rounding: Rounding, to: &'a mut [f32]) -> PackedTile<'a> {
        PackedTile::pack(lines, true, factors, rounding, to)
    }

    fn pack(lines: &[f32], columns: bool, factors: &[f32], rounding: Rounding, to: &'a mut [f32]) -> PackedTile<'a> {
        let length = lines.len() / factors.len().max(1);
        let b = Mat::new(lines, factors.len(), length);
        let b = if columns { b.t() } else { b };
        let to = &mut to[..PackedTile::words(b.rows, b.cols)];
        let tile = |words| PackedTile { words, rounding, k: b.rows, n: b.cols, columns };
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() && b.rows * b.cols > 0 {
            // SAFETY: `cpu::bf16` said that the CPU has the features.
            unsafe {
                match rounding {
                    Rounding::F32 => pack::<false>(&b, columns, factors, to),
                    Rounding::Bf16 => pack::<true>(&b, columns, factors, to),
                }
            }
            return tile(to);
        }
        for ((line, to), &factor) in lines.chunks(length.max(1)).zip(to.chunks_mut(length.max(1))).zip(factors) {
            lanes::scale(factor, line, to);
        }
        tile(to)
    }
}

/// Packs all panels of b, with a factor for each line.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`].
#[cfg(target_arch = "x86_64")]
unsafe fn pack<const BF16: bool>(b: &Mat, are_columns: bool, factors: &[f32], to: &mut [f32]) {
    let inner = InnerBlocking::new(b.rows, per_step::<BF16>());
    for chunk in 0..inner.chunks {
        for columns in panels(0..b.cols) {
            let to = &mut to[inner.panel_offset(b.cols, chunk, columns.start)..];
            assert!(to.len() >= inner.steps_of(chunk) * columns.len().next_multiple_of(LANES));
            let to = to.as_mut_ptr().cast();
            // SAFETY: the caller's promise; the words of the panel were counted.
            unsafe { pack_scaled_b::<BF16>(b, are_columns, inner.range(chunk), columns, factors, to) };
        }
    }
}

impl Product<'_> {
    /// Runs the product on this thread with a tile as b. Sums over long inner dimensions are in another order than in [`Product::run`].
    ///
    /// # Panics
    /// When the dimensions do not fit or b was rounded otherwise: a broken invariant of the caller.
    pub fn run_tile(&self, a: Mat, b: &PackedTile, c: MatMut, pool: &Pool) {
        check_shapes(&a, [b.k, b.n], &c);
        self.check(&c);
        assert!(b.rounding == self.rounding && !self.parallel, "a tile in {:?} for {self:?}", b.rounding);
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() && c.rows * c.cols * a.cols > 0 {
            // SAFETY: the CPU has the features, so the tile is packed; the shapes and the rounding fit.
            unsafe { self.run_blocked(a, OperandB::Packed(b.words), c, None, pool) };
            return;
        }
        let lines = if b.columns { Mat::new(b.words, b.n, b.k).t() } else { Mat::new(b.words, b.k, b.n) };
        self.run(a, lines, c, pool);
    }
}
