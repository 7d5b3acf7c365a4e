use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder};
use esvit_graph::{GpuIo, Result};

use super::{GLOBAL_CROPS, RegionMatch};

/// Mirrors `Params` in `match.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    pictures: u32,
    images: u32,
    tokens: u32,
    candidates: u32,
    cols: u32,
    targets: u32,
    slot: u32,
    first: u32,
    student_at: u32,
    teacher_at: u32,
    matches_at: u32,
    pad: u32,
}

static MATCH: Kernel = Kernel::new::<Params>("region_match", &[include_str!("match.wgsl")], "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&MATCH];

/// Student tokens of a workgroup.
const TOKENS: usize = 16;

pub(super) fn record(op: &RegionMatch, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let row_bytes = 4 * io.matrix(0).1;
    let mut crop = 0;
    while crop < op.crop_tokens.len() {
        let tokens = op.crop_tokens[crop];
        // Local crops of one size are one matrix of pictures.
        let alike = op.crop_tokens[crop..].iter().take_while(|&&n| n == tokens).count();
        let widest = RegionMatch::targets(crop).map(|q| op.crop_tokens[q]).max().unwrap_or(0);
        let together =
            rec.image_pieces(alike * op.batch, tokens * row_bytes).len() == 1 && rec.image_pieces(op.batch, widest * row_bytes).len() == 1;
        let crops = if crop >= GLOBAL_CROPS && together { alike } else { 1 };
        if crops > 1 {
            search(op, io, rec, crop..crop + crops, 0..op.batch)?;
        } else {
            for images in rec.image_pieces(op.batch, tokens.max(widest) * row_bytes) {
                search(op, io, rec, crop..crop + 1, images)?;
            }
        }
        crop += crops;
    }
    Ok(())
}

/// Records the matches of some images, in crops of one size with the same targets; in all their images if it is more than one crop.
fn search(op: &RegionMatch, io: &GpuIo, rec: &mut Recorder, crops: Range<usize>, images: Range<usize>) -> Result<()> {
    let (_, cols) = io.matrix(0);
    let (crop, tokens) = (crops.start, op.crop_tokens[crops.start]);
    let pictures = crops.len() * images.len();
    let targets = RegionMatch::targets(crop).count();
    let before: usize = (0..crop).map(|c| op.batch * op.crop_tokens[c] * RegionMatch::targets(c).count()).sum();
    let (student, student_at) = rec.aligned(&io.inputs[0], op.first_row(crop, images.start) * cols, pictures * tokens * cols);
    let first_match = before + images.start * tokens * targets;
    let (matches, matches_at) = rec.aligned(&io.outputs[0], first_match, pictures * tokens * targets);
    for (slot, q) in RegionMatch::targets(crop).enumerate() {
        let (first, candidates) = (op.first_row(q, images.start), op.crop_tokens[q]);
        let (teacher, teacher_at) = rec.aligned(&io.inputs[1], first * cols, images.len() * candidates * cols);
        let params = Params {
            pictures: pictures as u32,
            images: images.len() as u32,
            tokens: tokens as u32,
            candidates: candidates as u32,
            cols: cols as u32,
            targets: targets as u32,
            slot: slot as u32,
            first: first as u32,
            student_at,
            teacher_at,
            matches_at,
            pad: 0,
        };
        rec.dispatch(&MATCH, &[&student, &teacher, &matches], &params, Grid::fold(pictures * tokens.div_ceil(TOKENS)))?;
    }
    Ok(())
}
