//! For every student token, the most similar teacher token of the same image in each other view.
//!
//! `match = argmax_j cos(s_i, t_j)`, the first of equals. Features are those of the backbone, before the head.
//!
//! - `student` `[Ns, C]`: crops in order; within a crop all images, within an image all tokens
//! - `teacher` `[Nt, C]`: the global crops, in the same order
//! - result `[P]` of indices: rows of `teacher`. One for each pair of a student row and a global crop that is not the row's own,
//!   by student row, then by global crop ([`RegionMatch::pairs`])
//! - no gradient: an index is not differentiable
//!
//! Source: Li et al. 2022 (EsViT), <https://arxiv.org/abs/2106.09785>, eq. 2.

mod cpu;
pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Io, Op, Result, Shape};

use crate::Input::Wave;
use crate::{Case, check};

/// Number of global crops, which both networks see.
pub const GLOBAL_CROPS: usize = 2;

/// The operator over crops of these sizes.
#[derive(Debug, Clone)]
pub struct RegionMatch {
    /// B: images of a crop.
    pub batch: usize,
    /// Tokens an image in each student crop; the first two are the global crops.
    pub crop_tokens: Vec<usize>,
}

impl RegionMatch {
    fn student_rows(&self) -> usize {
        self.batch * self.crop_tokens.iter().sum::<usize>()
    }

    fn teacher_rows(&self) -> usize {
        self.batch * self.crop_tokens[..GLOBAL_CROPS].iter().sum::<usize>()
    }

    /// Global crops a crop is matched with.
    pub fn targets(crop: usize) -> impl Iterator<Item = usize> {
        (0..GLOBAL_CROPS).filter(move |&q| q != crop)
    }

    /// P: pairs of a student row and another global crop.
    pub fn pairs(&self) -> usize {
        self.crop_tokens.iter().enumerate().map(|(crop, n)| self.batch * n * Self::targets(crop).count()).sum()
    }

    /// First row of an image in a crop.
    fn first_row(&self, crop: usize, image: usize) -> usize {
        self.batch * self.crop_tokens[..crop].iter().sum::<usize>() + image * self.crop_tokens[crop]
    }
}

impl Op for RegionMatch {
    fn name(&self) -> &'static str {
        "region_match"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("region_match", inputs, 2)?;
        let (_, c) = check::matrix("region_match", "student", inputs[0])?;
        check::shape("region_match", "student", inputs[0], &[self.student_rows(), c])?;
        check::shape("region_match", "teacher", inputs[1], &[self.teacher_rows(), c])?;
        Ok(vec![(vec![self.pairs()], DType::U32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::reference(self, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::fast(self, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::record(self, io, rec)
    }

    fn scratch(&self, inputs: &[&Shape], threads: usize) -> usize {
        let widest = self.crop_tokens[..GLOBAL_CROPS].iter().max().copied().unwrap_or(0);
        let tallest = self.crop_tokens.iter().max().copied().unwrap_or(0);
        4 * (inputs[1][0] * inputs[1][1] + threads * tallest * widest)
    }

    fn flops(&self, inputs: &[&Shape]) -> u64 {
        let per_token = self.crop_tokens[..GLOBAL_CROPS].iter().max().copied().unwrap_or(0);
        2 * (self.pairs() * per_token * inputs[0][1]) as u64
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, batch, crop_tokens: &[usize], c| {
        let op = RegionMatch { batch, crop_tokens: crop_tokens.to_vec() };
        let inputs = vec![Wave(vec![op.student_rows(), c]), Wave(vec![op.teacher_rows(), c])];
        Case::new(why, op, inputs).differentiate(&[])
    };
    vec![
        case("global and local crops", 3, &[16, 16, 4, 4], 12),
        case("global crops only, one image", 1, &[9, 9], 7),
        case("more tokens, candidates and channels than a kernel's tiles; local crops of two sizes", 2, &[70, 66, 20, 20, 5], 37),
    ]
}
