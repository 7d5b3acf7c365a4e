//! Pixels of a step as the caller gives them, and pixels of a pass as the program reads them.

use std::ops::Range;

use esvit_graph::{DType, Slice};
use esvit_ops::patchify::{MEAN, STD};
use esvit_ops::region_match::GLOBAL_CROPS;

use crate::network::PixelCounts;
use crate::spec::TrainerSpec;

/// Pixels of a step: the global crops, all images of crop 0 first, then the local ones. B is the images of the whole step:
/// those of a pass times the passes.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// 8-bit RGB, (height, width, channel), normalized by the engine.
    U8 {
        /// `2·B` images of the global size.
        global: &'a [u8],
        /// `local_count·B` images of the local size.
        local: &'a [u8],
    },
    /// Normalized floats, (channel, height, width); what a trainer with mixup works on.
    F32 {
        /// `2·B` images of the global size.
        global: &'a [f32],
        /// `local_count·B` images of the local size.
        local: &'a [f32],
    },
}

/// Pixels of a pass as the program reads them: global crops, then local ones.
#[derive(Debug)]
pub(crate) enum PassPixels {
    U8(Vec<u8>),
    F32 { student: Vec<f32>, teacher: Vec<f32> },
}

impl PassPixels {
    /// Memory for the pixels of one pass.
    pub fn new(dtype: DType, counts: PixelCounts) -> PassPixels {
        let all = counts.global + counts.local;
        match dtype {
            DType::U8 => PassPixels::U8(vec![0; all]),
            _ => PassPixels::F32 { student: vec![0.0; all], teacher: vec![0.0; counts.global] },
        }
    }

    /// Pixels of the student's crops.
    pub fn student(&self) -> Slice<'_> {
        match self {
            PassPixels::U8(all) => Slice::U8(all),
            PassPixels::F32 { student, .. } => Slice::F32(student),
        }
    }

    /// Pixels of the teacher's crops, which are never mixed.
    pub fn teacher(&self, counts: PixelCounts) -> Slice<'_> {
        match self {
            PassPixels::U8(all) => Slice::U8(&all[..counts.global]),
            PassPixels::F32 { teacher, .. } => Slice::F32(teacher),
        }
    }

    /// Copies a pass's share of the step's pixels, mixed where `mixup` says so. Sizes were checked.
    pub fn fill(&mut self, spec: &TrainerSpec, counts: PixelCounts, pixels: &Pixels, mixup: Option<&[f32]>, pass: usize) {
        let (batch, passes) = (spec.crops.batch, spec.accumulate);
        // Images of a crop lie together: each crop gives this pass a run of them.
        let runs = move |crops: usize, len: usize| {
            let run = len.checked_div(crops * passes).unwrap_or(0);
            (0..crops).map(move |crop| (crop * passes + pass) * run..(crop * passes + pass + 1) * run)
        };
        fn copy<T: Copy>(from: &[T], to: &mut [T], runs: impl Iterator<Item = Range<usize>>) {
            let mut rest = to;
            for run in runs {
                let (to, more) = rest.split_at_mut(run.len());
                to.copy_from_slice(&from[run]);
                rest = more;
            }
        }
        let locals = spec.crops.local_count;
        match (&mut *self, pixels) {
            (PassPixels::U8(all), Pixels::U8 { global, local }) => {
                copy(global, &mut all[..counts.global], runs(GLOBAL_CROPS, global.len()));
                copy(local, &mut all[counts.global..], runs(locals, local.len()));
            }
            (PassPixels::F32 { student, teacher }, Pixels::F32 { global, local }) => {
                copy(global, &mut student[..counts.global], runs(GLOBAL_CROPS, global.len()));
                copy(local, &mut student[counts.global..], runs(locals, local.len()));
                teacher.copy_from_slice(&student[..counts.global]);
            }
            (PassPixels::F32 { student, teacher }, Pixels::U8 { global, local }) => {
                let (mut to, size) = (&mut student[..], |global: bool| if global { spec.crops.global_size } else { spec.crops.local_size });
                for (from, is_global) in [(global, true), (local, false)] {
                    for run in runs(if is_global { GLOBAL_CROPS } else { locals }, from.len()) {
                        let (crop, more) = to.split_at_mut(run.len());
                        normalize(&from[run], size(is_global), crop);
                        to = more;
                    }
                }
                teacher.copy_from_slice(&student[..counts.global]);
            }
            (PassPixels::U8(_), Pixels::F32 { .. }) => unreachable!("checked before"),
        }
        if let (PassPixels::F32 { student, .. }, Some(lambda)) = (self, mixup) {
            let mut rest = student.as_mut_slice();
            for (crop, &lambda) in lambda.iter().enumerate() {
                let side = if crop < GLOBAL_CROPS { spec.crops.global_size } else { spec.crops.local_size };
                let (images, tail) = rest.split_at_mut(batch * 3 * side * side);
                mix_reversed(images, batch, lambda);
                rest = tail;
            }
        }
    }
}

/// 8-bit (height, width, channel) to normalized (channel, height, width).
fn normalize(from: &[u8], side: usize, to: &mut [f32]) {
    let area = side * side;
    for (from, to) in from.chunks(3 * area).zip(to.chunks_mut(3 * area)) {
        for (p, rgb) in from.chunks(3).enumerate() {
            for c in 0..3 {
                to[c * area + p] = (f32::from(rgb[c]) / 255.0 - MEAN[c]) / STD[c];
            }
        }
    }
}

/// `x ← λ·x + (1 − λ)·x[reversed]` over the images of a crop.
fn mix_reversed(images: &mut [f32], batch: usize, lambda: f32) {
    let n = images.len() / batch;
    for i in 0..batch.div_ceil(2) {
        let (head, tail) = images.split_at_mut((batch - 1 - i) * n);
        if i == batch - 1 - i {
            continue; // the middle image is mixed with itself
        }
        for (a, b) in head[i * n..(i + 1) * n].iter_mut().zip(&mut tail[..n]) {
            (*a, *b) = (lambda * *a + (1.0 - lambda) * *b, lambda * *b + (1.0 - lambda) * *a);
        }
    }
}
