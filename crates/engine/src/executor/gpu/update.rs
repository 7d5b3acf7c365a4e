//! Kernels behind the gradients: clipping, the update rule, the teacher, averages, the report.

use esvit_gpu::{Grid, Recorder, View};
use esvit_nn::Role;

use super::kernels::*;
use super::memory::{GpuState, PARAMETERS_HEAD};
use crate::optimizer::{AdamRates, Optimizer};
use crate::spec::{OptimizerKind, TrainerSpec};
use crate::{Result, StepParameters, Store};

/// Elements whose squares one workgroup adds: `PIECE` in `squares.wgsl`.
const PIECE: usize = 4096;
/// Modes of `squares.wgsl` and `norm.wgsl`.
const CLIP: u32 = 0;
const LARS: u32 = 1;

/// Student and memory of a state that is updated.
#[derive(Clone, Copy)]
pub struct Update<'a> {
    pub student: &'a Store,
    pub memory: &'a GpuState,
}

/// Records the first part of the report.
pub fn report(rec: &mut Recorder, update: &Update, view_loss: &View, region_loss: Option<&View>, entropy: &View) -> Result<()> {
    let params = ReportParams { region: u32::from(region_loss.is_some()), pad: [0; 3] };
    let bindings = [view_loss, region_loss.unwrap_or(view_loss), entropy, &update.memory.report, &update.memory.scaler];
    Ok(rec.dispatch(&REPORT, &bindings, &params, Grid([1, 1, 1]))?)
}

/// Records the decision whether the optimizer's step is taken, and the scale of the next one. Comes between all norms and all updates.
pub fn scaler(rec: &mut Recorder, update: &Update) -> Result<()> {
    let params = ScalerParams { entries: update.student.entries().len() as u32, pad: [0; 3] };
    Ok(rec.dispatch(&SCALER, &[&update.memory.scaler, &update.memory.report], &params, Grid([1, 1, 1]))?)
}

/// Records the norms of entry `i`'s gradient.
pub fn norms(rec: &mut Recorder, update: &Update, i: usize, gradient: Option<&View>, kind: OptimizerKind) -> Result<()> {
    let entry = &update.student.entries()[i];
    let Some(g) = gradient.filter(|_| entry.role == Role::Parameter) else { return Ok(()) };
    let len = update.student.values(i).len();
    rec.scoped(|rec| squares(rec, update, i, g, len, CLIP))?;
    if kind == OptimizerKind::Lars && entry.shape.len() > 1 {
        rec.scoped(|rec| squares(rec, update, i, g, len, LARS))?;
    }
    Ok(())
}

/// Records update and average of entry `i`, after its norms.
pub fn entry(rec: &mut Recorder, update: &Update, i: usize, gradient: Option<&View>, kind: OptimizerKind) -> Result<()> {
    let entry = &update.student.entries()[i];
    let (w, t) = (&update.memory.student[i], &update.memory.teacher[i]);
    let len = update.student.values(i).len();
    let averaged = matches!(entry.role, Role::Parameter | Role::Frozen);
    let Some(g) = gradient.filter(|_| entry.role == Role::Parameter) else {
        if averaged {
            for piece in rec.row_pieces(len, 4) {
                let [w, t] = [w, t].map(|view| view.rows(piece.start, piece.len(), 1));
                let params = AverageParams { len: piece.len() as u32, teacher: 1, keep: 0.0, share: 0.0 };
                rec.dispatch(
                    &AVERAGE,
                    &[&w, &t, &update.memory.report, &update.memory.parameters],
                    &params,
                    Grid::elements(piece.len(), 256),
                )?;
            }
        }
        return Ok(());
    };
    let m = &update.memory.moments[i];
    for piece in rec.row_pieces(len, 4) {
        let part = |view: &View| view.rows(piece.start, piece.len(), 1);
        let params = UpdateParams { len: piece.len() as u32, entry: i as u32, pad: [0; 2] };
        let grid = Grid::elements(piece.len(), 256);
        match kind {
            OptimizerKind::Adamw => {
                rec.dispatch(
                    &ADAMW,
                    &[&part(w), &part(&m[0]), &part(&m[1]), &part(g), &part(t), &update.memory.report, &update.memory.parameters],
                    &params,
                    grid,
                )?;
            }
            OptimizerKind::Sgd | OptimizerKind::Lars => {
                rec.dispatch(
                    &MOMENTUM,
                    &[&part(w), &part(&m[0]), &part(g), &part(t), &update.memory.report, &update.memory.parameters],
                    &params,
                    grid,
                )?;
            }
        }
    }
    Ok(())
}

fn squares(rec: &mut Recorder, update: &Update, i: usize, g: &View, len: usize, mode: u32) -> Result<()> {
    let pieces = len.div_ceil(PIECE);
    let partial = rec.scratch(8 * pieces as u64);
    let mut first = 0;
    // Pieces that can be bound begin where a workgroup's piece begins.
    for part in rec.row_pieces(pieces, 4 * PIECE) {
        let (from, to) = (part.start * PIECE, (part.end * PIECE).min(len));
        let view = |v: &View| v.rows(from, to - from, 1);
        let params = SquaresParams { len: (to - from) as u32, mode, entry: i as u32, first };
        let bindings = [&view(g), &view(&update.memory.student[i]), &update.memory.report, &update.memory.parameters, &partial];
        rec.dispatch(&SQUARES, &bindings, &params, Grid::fold(part.len()))?;
        first += part.len() as u32;
    }
    let params = NormParams { pieces: pieces as u32, mode, entry: i as u32, pad: 0 };
    Ok(rec.dispatch(&NORM, &[&partial, &update.memory.report, &update.memory.parameters], &params, Grid([1, 1, 1]))?)
}

/// Records `y ← keep·y + share·x`.
pub fn average(rec: &mut Recorder, update: &Update, x: &View, y: &View, keep: f32, share: f32) -> Result<()> {
    let len = (y.bytes() / 4) as usize;
    let params = AverageParams { len: len as u32, teacher: 0, keep, share };
    Ok(rec.dispatch(&AVERAGE, &[x, y, &update.memory.report, &update.memory.parameters], &params, Grid::elements(len, 256))?)
}

/// Records the last part of the report.
pub fn summary(rec: &mut Recorder, report: &View, views: &View, [rows, cols]: [usize; 2], entries: usize) -> Result<()> {
    let lengths = rec.scratch(4 * rows as u64);
    let params = SummaryParams { rows: rows as u32, cols: cols as u32, entries: entries as u32, pad: 0 };
    Ok(rec.dispatch(&SUMMARY, &[views, &lengths, report], &params, Grid([1, 1, 1]))?)
}

/// Whether entry `i` is updated in this step.
fn is_active(parameters: &StepParameters, student: &Store, moments: &[Vec<View>], i: usize) -> bool {
    let entry = &student.entries()[i];
    entry.role == Role::Parameter && !moments[i].is_empty() && !(parameters.freeze_last_layer && entry.is_last_layer())
}

/// The parameters as the kernels read them.
pub fn parameters(
    spec: &TrainerSpec,
    parameters: &StepParameters,
    student: &Store,
    moments: &[Vec<View>],
    optimizer: &Optimizer,
) -> Vec<f32> {
    let head: [f32; PARAMETERS_HEAD] = [parameters.momentum as f32, (1.0 - parameters.momentum) as f32, spec.clip_grad, 0.0];
    let mut all = head.to_vec();
    for (i, entry) in student.entries().iter().enumerate() {
        let active = if is_active(parameters, student, moments, i) { 1.0 } else { 0.0 };
        let decay = if entry.is_decayed() { parameters.weight_decay } else { 0.0 };
        let steps = optimizer.steps(i);
        all.extend(match spec.optimizer {
            OptimizerKind::Adamw => {
                let AdamRates { keep, step, bias2 } = AdamRates::new(parameters.learning_rate, decay, steps + 1);
                [active, keep, step, bias2]
            }
            OptimizerKind::Sgd => {
                [active, decay as f32, if steps == 0 { 0.0 } else { crate::optimizer::MOMENTUM }, parameters.learning_rate as f32]
            }
            OptimizerKind::Lars => {
                let decay = if entry.shape.len() > 1 { decay as f32 } else { 0.0 };
                [active, decay, crate::optimizer::MOMENTUM, parameters.learning_rate as f32]
            }
        });
    }
    all
}

/// Counts an update of the active entries.
pub fn count(parameters: &StepParameters, student: &Store, moments: &[Vec<View>], optimizer: &mut Optimizer) {
    for i in 0..student.entries().len() {
        if is_active(parameters, student, moments, i) {
            optimizer.count(i, student.values(i).len());
        }
    }
}
