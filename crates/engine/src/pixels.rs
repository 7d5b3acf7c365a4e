//! Pixels of a step as the caller gives them, and pixels of a pass as the program reads them.

use esvit_graph::{DType, Slice};
use esvit_ops::patchify::{MEAN, STD};
use esvit_ops::region_match::GLOBAL_CROPS;

use crate::BatchReader;
use crate::network::PixelCounts;
use crate::spec::TrainerSpec;

/// Pixels of a step.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// 8-bit RGB, normalized by the engine; read in place where the program takes bytes.
    U8(&'a BatchReader),
    /// Normalized floats, (channel, height, width), crop by crop: all images of the step of global crop 0 first.
    F32 {
        /// `2·B` images of the global size; B is the images of the whole step.
        global: &'a [f32],
        /// `local_count·B` images of the local size.
        local: &'a [f32],
    },
}

/// Pixels of a pass as the program reads them: global crops, then local ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassPixels<'a> {
    /// Crops of the student, mixed where mixup is asked for.
    pub student: Slice<'a>,
    /// Global crops of the teacher, which are never mixed.
    pub teacher: Slice<'a>,
}

/// Memory for the pixels of one pass. Bytes need none: the program reads the batch.
#[derive(Debug)]
pub(crate) enum PixelMemory {
    Bytes,
    Floats { student: Vec<f32>, teacher: Vec<f32> },
}

impl PixelMemory {
    /// Memory for a program that reads pixels of this type.
    pub fn new(dtype: DType, counts: PixelCounts) -> PixelMemory {
        match dtype {
            DType::U8 => PixelMemory::Bytes,
            _ => PixelMemory::Floats { student: vec![0.0; counts.global + counts.local], teacher: vec![0.0; counts.global] },
        }
    }

    /// Bytes of that memory.
    pub fn bytes(dtype: DType, counts: PixelCounts) -> usize {
        match dtype {
            DType::U8 => 0,
            // The teacher's crops lie apart: the student's are mixed.
            _ => 4 * (2 * counts.global + counts.local),
        }
    }

    /// A pass's share of the step's pixels, mixed where `mixup` says so. Sizes and types were checked.
    pub fn pass<'a>(&'a mut self, spec: &TrainerSpec, pixels: Pixels<'a>, mixup: Option<&[f32]>, pass: usize) -> PassPixels<'a> {
        let (student, teacher) = match (self, pixels) {
            (PixelMemory::Bytes, Pixels::U8(batch)) => {
                let student = batch.pass(pass);
                let teacher = &student[..batch.layout().global_bytes()];
                return PassPixels { student: Slice::U8(student), teacher: Slice::U8(teacher) };
            }
            (PixelMemory::Bytes, Pixels::F32 { .. }) => unreachable!("checked before"),
            (PixelMemory::Floats { student, teacher }, Pixels::U8(batch)) => {
                let (global, local) = batch.pass(pass).split_at(teacher.len());
                normalize(global, spec.crops.global_size, &mut student[..teacher.len()]);
                normalize(local, spec.crops.local_size, &mut student[teacher.len()..]);
                (student, teacher)
            }
            (PixelMemory::Floats { student, teacher }, Pixels::F32 { global, local }) => {
                copy_pass(global, spec.accumulate, pass, &mut student[..teacher.len()], GLOBAL_CROPS);
                copy_pass(local, spec.accumulate, pass, &mut student[teacher.len()..], spec.crops.local_count);
                (student, teacher)
            }
        };
        let (global, _) = student.split_at(teacher.len());
        teacher.copy_from_slice(global);
        let mut rest = student.as_mut_slice();
        for (crop, &lambda) in mixup.unwrap_or_default().iter().enumerate() {
            let side = if crop < GLOBAL_CROPS { spec.crops.global_size } else { spec.crops.local_size };
            let (images, tail) = rest.split_at_mut(spec.crops.batch * 3 * side * side);
            mix_reversed(images, spec.crops.batch, lambda);
            rest = tail;
        }
        PassPixels { student: Slice::F32(student), teacher: Slice::F32(teacher) }
    }
}

/// Copies a pass's images of each crop: they are a run among the step's images of that crop.
fn copy_pass(from: &[f32], passes: usize, pass: usize, to: &mut [f32], crops: usize) {
    if crops == 0 {
        return;
    }
    let run = to.len() / crops;
    for (crop, to) in to.chunks_exact_mut(run).enumerate() {
        let start = (crop * passes + pass) * run;
        to.copy_from_slice(&from[start..start + run]);
    }
}

/// Normalizes 8-bit (height, width, channel) to (channel, height, width).
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

/// Mixes the images of a crop: `x ← λ·x + (1 − λ)·x[reversed]`.
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
