//! Memory that several threads write, each in a place of its own, and the loop over their jobs.

use rayon::prelude::*;

use super::blocking::MR;
use crate::gemm::matrix::{ElementsMut, MatMut};

/// Result of a product, written in tiles by several threads, or a buffer for one panel of it.
#[derive(Clone, Copy)]
pub struct SharedOutput {
    pub c: *mut f32,
    /// Distance of rows.
    pub row_stride: usize,
    /// Distance of micro-tiles of eight rows; 0 where each takes the place of the one before.
    pub tile_stride: usize,
    /// Column that `c` begins with.
    pub first_column: usize,
    /// Whether the elements are bf16.
    pub bf16: bool,
}

impl SharedOutput {
    /// Whole rows of f32.
    pub fn new(c: *mut f32, row_stride: usize) -> SharedOutput {
        SharedOutput { c, row_stride, tile_stride: MR * row_stride, first_column: 0, bf16: false }
    }

    /// Whole rows of a matrix.
    pub fn of(c: MatMut) -> SharedOutput {
        let n = c.cols;
        match c.data {
            ElementsMut::F32(data) => SharedOutput::new(data[..c.rows * n].as_mut_ptr(), n),
            ElementsMut::Bf16x2(words) => SharedOutput { bf16: true, ..SharedOutput::new(words[..c.rows * n / 2].as_mut_ptr().cast(), n) },
        }
    }

    /// The result without its first `row` rows.
    ///
    /// # Safety
    /// The result reaches that far.
    pub unsafe fn skip_rows(self, row: usize) -> SharedOutput {
        // SAFETY: the caller's promise.
        SharedOutput { c: unsafe { self.at(row * self.row_stride) }, ..self }
    }

    /// Address of the element at this offset.
    ///
    /// # Safety
    /// The result reaches that far.
    pub unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { if self.bf16 { self.c.cast::<u16>().add(offset).cast() } else { self.c.add(offset) } }
    }
}

// SAFETY: every job writes elements of its own.
unsafe impl Send for SharedOutput {}
// SAFETY: as above.
unsafe impl Sync for SharedOutput {}

/// Packed words, written in panels and blocks by several threads.
#[derive(Clone, Copy)]
pub struct SharedWords(pub *mut u32);

impl SharedWords {
    /// Address of the word at this offset.
    ///
    /// # Safety
    /// The words reach that far.
    pub unsafe fn at(self, offset: usize) -> *mut u32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

// SAFETY: every thread writes panels and blocks of its own.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

/// Runs jobs one after the other, or over the threads.
pub fn for_each_job(parallel: bool, jobs: usize, job: impl Fn(usize) + Sync + Send) {
    if parallel && jobs > 1 { (0..jobs).into_par_iter().with_max_len(1).for_each(job) } else { (0..jobs).for_each(job) }
}
