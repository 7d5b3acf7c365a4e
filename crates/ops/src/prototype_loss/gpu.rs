use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use esvit_gpu::matmul::{GpuOperand, GpuProduct};
use esvit_gpu::{Grid, Kernel, Recorder, View, reduce};
use esvit_graph::{GpuIo, Result};

use super::PrototypeLoss;
use crate::weight_norm;

/// Mirrors `Params` in all WGSL files of this folder; not every kernel reads all of it.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// Rows, pairs or elements.
    rows: u32,
    cols: u32,
    flags: u32,
    /// 1/τ, or the factor of a sum.
    scale: f32,
}

impl Params {
    fn new(rows: usize, cols: usize, flags: u32, scale: f32) -> Params {
        Params { rows: rows as u32, cols: cols as u32, flags, scale }
    }
}

static TEACHER_TILE: Kernel =
    Kernel::new::<Params>("prototype_teacher", &[include_str!("teacher_tile.wgsl"), reduce::OVER_WORKGROUP], "main", 6);
static STUDENT_TILE: Kernel =
    Kernel::new::<Params>("prototype_student", &[include_str!("student_tile.wgsl"), reduce::OVER_WORKGROUP], "main", 3);
static PAIR_TILE: Kernel = Kernel::new::<Params>("prototype_pair", &[include_str!("pair_tile.wgsl"), reduce::OVER_WORKGROUP], "main", 8);
static SUM: Kernel = Kernel::new::<Params>("prototype_sum", &[include_str!("sum.wgsl"), reduce::OVER_WORKGROUP], "main", 2);
static TEACHER_MEAN: Kernel = Kernel::new::<Params>("prototype_mean", &[include_str!("teacher_mean.wgsl")], "main", 3);
static PROBABILITIES: Kernel = Kernel::new::<Params>("prototype_probabilities", &[include_str!("teacher_probabilities.wgsl")], "main", 4);
static GRADIENT: Kernel = Kernel::new::<Params>("prototype_gradient", &[include_str!("gradient.wgsl")], "main", 7);

pub(crate) static KERNELS: &[&Kernel] = &[&TEACHER_TILE, &STUDENT_TILE, &PAIR_TILE, &SUM, &TEACHER_MEAN, &PROBABILITIES, &GRADIENT];

const FIRST: u32 = 1;
const LAST: u32 = 2;

/// Bytes of both networks' logits of a tile.
const LOGITS: usize = 32 << 20;
/// Fewest prototypes of a tile: matrix products of less are slow.
const NARROW: usize = 256;

/// Sizes, and the memory for the logits of a tile.
struct GpuLossTiles<'a> {
    io: &'a GpuIo<'a>,
    ns: usize,
    nt: usize,
    k: usize,
    d: usize,
    /// Prototypes of a tile; all but the last have a multiple of 64, so that every tile starts where a binding can start.
    step: usize,
    student: View,
    teacher: View,
    /// Prototypes of a tile.
    w: View,
}

impl<'a> GpuLossTiles<'a> {
    fn new(io: &'a GpuIo, rec: &mut Recorder) -> GpuLossTiles<'a> {
        let ((ns, d), (k, _), (nt, _)) = (io.matrix(0), io.matrix(1), io.matrix(3));
        let wanted = (LOGITS / (4 * (ns + nt).max(d)) / 64 * 64).max(NARROW);
        // A tile of logits, and the tile's prototypes, are one binding each.
        let step = rec.row_pieces(k, 4 * ns.max(nt).max(d))[0].len().min(wanted);
        let [student, teacher] = [ns, nt].map(|rows| rec.scratch((4 * rows * step) as u64));
        let w = rec.scratch((4 * d * step) as u64);
        GpuLossTiles { io, ns, nt, k, d, step, student, teacher, w }
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (k, step) = (self.k, self.step);
        (0..k).step_by(step).map(move |start| start..(start + step).min(k))
    }

    /// Flags of a tile's place in K.
    fn flags(&self, tile: &Range<usize>) -> u32 {
        (if tile.start == 0 { FIRST } else { 0 }) | (if tile.end == self.k { LAST } else { 0 })
    }

    /// The tile's part of operand or result `view`, `[K, cols]`.
    fn part(&self, view: &View, tile: &Range<usize>, cols: usize) -> View {
        view.rows(tile.start, tile.len(), cols)
    }

    /// Records the tile's student logits, `[Ns, tile]`; its prototypes are the second result.
    fn student_logits(&self, rec: &mut Recorder, tile: &Range<usize>) -> Result<[View; 2]> {
        self.logits(rec, tile, [0, 1, 2], &self.student, self.ns)
    }

    /// Records the tile's teacher logits, `[Nt, tile]`. Its prototypes take the place of the student's.
    fn teacher_logits(&self, rec: &mut Recorder, tile: &Range<usize>) -> Result<[View; 2]> {
        self.logits(rec, tile, [3, 4, 5], &self.teacher, self.nt)
    }

    fn logits(&self, rec: &mut Recorder, tile: &Range<usize>, operands: [usize; 3], to: &View, rows: usize) -> Result<[View; 2]> {
        let [z, v, g] = operands.map(|i| &self.io.inputs[i]);
        let (to, w) = (to.rows(0, rows, tile.len()), self.w.rows(0, tile.len(), self.d));
        weight_norm::gpu::normalize(rec, &self.part(v, tile, self.d), &self.part(g, tile, 1), &w, [tile.len(), self.d])?;
        let size = [rows, tile.len(), self.d];
        GpuProduct::new(GpuOperand::plain(z), GpuOperand::transposed(&w), &to, size).half(self.io.half()).record(rec)?;
        Ok([to, w])
    }
}

/// Indices that are known when the recording is made.
fn constant(rec: &Recorder, indices: &[u32]) -> Result<View> {
    let view = rec.gpu().allocate("pairs of the loss", size_of_val(indices) as u64)?;
    rec.gpu().upload(&view, bytemuck::cast_slice(indices));
    Ok(view)
}

pub(super) fn forward(op: &PrototypeLoss, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let x = GpuLossTiles::new(io, rec);
    let [teacher_z, center, temperature, pair_teacher, pair_weight] = [3, 6, 7, 8, 9].map(|i| &io.inputs[i]);
    let [loss, lse_s, lse_t, mean, entropy] = [0, 1, 2, 3, 4].map(|i| &io.outputs[i]);
    let students: Vec<u32> = (0..x.ns).flat_map(|i| op.pairs(i).map(move |_| i as u32)).collect();
    let pairs = students.len();
    let pair_student = constant(rec, &students)?;
    let inverse_tau = 1.0 / op.student_temperature;

    let words = |rec: &mut Recorder, n: usize| rec.scratch(4 * n as u64);
    let [student, teacher, entropies, sums, sum_z] = [2 * x.ns, 4 * x.nt, x.nt, pairs, x.d].map(|n| words(rec, n));
    rec.scoped(|rec| reduce::column_sum(rec, teacher_z, &sum_z, x.nt, x.d))?;
    for tile in x.ranges() {
        let (n, flags) = (tile.len(), x.flags(&tile));
        let [t, w] = x.teacher_logits(rec, &tile)?;
        // The mean logit is the logit of the mean.
        let bindings = [&w, &sum_z, &x.part(mean, &tile, 1)];
        rec.dispatch(&TEACHER_MEAN, &bindings, &Params::new(n, x.d, 0, 1.0 / x.nt as f32), Grid::elements(n, 4))?;
        let bindings = [&t, &x.part(center, &tile, 1), temperature, &teacher, lse_t, &entropies];
        rec.dispatch(&TEACHER_TILE, &bindings, &Params::new(x.nt, n, flags, 0.0), Grid::fold(x.nt))?;
        let [s, _] = x.student_logits(rec, &tile)?;
        rec.dispatch(&STUDENT_TILE, &[&s, &student, lse_s], &Params::new(x.ns, n, flags, inverse_tau), Grid::fold(x.ns))?;
        let bindings = [&s, &t, &teacher, lse_s, &pair_student, pair_teacher, pair_weight, &sums];
        rec.dispatch(&PAIR_TILE, &bindings, &Params::new(pairs, n, flags, inverse_tau), Grid::fold(pairs))?;
    }
    rec.dispatch(&SUM, &[&sums, loss], &Params::new(pairs, 1, 0, 1.0), Grid([1, 1, 1]))?;
    Ok(rec.dispatch(&SUM, &[&entropies, entropy], &Params::new(x.nt, 1, 0, 1.0 / x.nt as f32), Grid([1, 1, 1]))?)
}

pub(super) fn backward(op: &PrototypeLoss, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let x = GpuLossTiles::new(io, rec);
    let [z, v, g_student, center, temperature] = [0, 1, 2, 6, 7].map(|i| &io.inputs[i]);
    let [pair_teacher, pair_weight, lse_s, lse_t, dloss] = [8, 9, 10, 11, 12].map(|i| &io.inputs[i]);
    let [dz, dv, dg] = [0, 1, 2].map(|i| &io.outputs[i]);
    let dw = rec.scratch((4 * x.d * x.step) as u64);
    let offsets = constant(rec, &op.offsets)?;
    let inverse_tau = 1.0 / op.student_temperature;

    for tile in x.ranges() {
        let n = tile.len();
        let blocks = n.div_ceil(256);
        let [q, _] = x.teacher_logits(rec, &tile)?;
        let bindings = [&q, &x.part(center, &tile, 1), temperature, lse_t];
        rec.dispatch(&PROBABILITIES, &bindings, &Params::new(x.nt, n, 0, 0.0), Grid::fold(x.nt * blocks))?;
        let [g, w] = x.student_logits(rec, &tile)?;
        let bindings = [&g, &q, lse_s, &offsets, pair_teacher, pair_weight, dloss];
        rec.dispatch(&GRADIENT, &bindings, &Params::new(x.ns, n, 0, inverse_tau), Grid::fold(x.ns * blocks))?;
        let dw = dw.rows(0, n, x.d);
        GpuProduct::new(GpuOperand::transposed(&g), GpuOperand::plain(z), &dw, [n, x.d, x.ns]).half(io.half()).record(rec)?;
        let product = GpuProduct::new(GpuOperand::plain(&g), GpuOperand::plain(&w), dz, [x.ns, x.d, n]);
        product.half(io.half()).adding(tile.start > 0).record(rec)?;
        let ([v, dv], [g_student, dg]) = ([v, dv].map(|view| x.part(view, &tile, x.d)), [g_student, dg].map(|view| x.part(view, &tile, 1)));
        weight_norm::gpu::denormalize(rec, [&v, &g_student, &dw], [&dv, &dg], [n, x.d])?;
    }
    Ok(())
}
