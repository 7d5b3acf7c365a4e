//! Update rules, clipping and the moving average, in one pass over each parameter.
//!
//! - clip: each gradient is scaled by `clip/(|g| + 1e-6)` where that is below 1, parameter by parameter
//! - AdamW: `p ← p·(1 − lr·wd)`, `m ← .9m + .1g`, `v ← .999v + .001g²`, `p ← p − lr/(1 − .9ᵗ)·m/(√v/√(1 − .999ᵗ) + 1e-8)`
//! - SGD: `g ← g + wd·p`, `b ← .9b + g` (first `b = g`), `p ← p − lr·b`
//! - LARS: where a tensor has more than one dimension `g ← (g + wd·p)·(.001·|p|/|g|)`; `μ ← .9μ + g`, `p ← p − lr·μ`
//! - teacher: `t ← m·t + (1 − m)·p`, with the new p
//!
//! Source: PyTorch's AdamW and SGD; LARS, `clip_gradients` and the training loop of microsoft/esvit (`utils.py`, `main_esvit.py`).

use std::collections::BTreeMap;

use esvit_nn::{ParameterEntry, Role};
use esvit_simd::cpu::madd;
use esvit_simd::{Pool, lanes, multiversion};
use rayon::prelude::*;

use crate::spec::OptimizerKind;
use crate::tensor::{Tensor, TensorValues, TensorView};
use crate::{Error, Result, StepParameters, Store};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f32 = 1e-8;
pub(crate) const MOMENTUM: f32 = 0.9;
const LARS_ETA: f64 = 0.001;

/// Moments and counters as plain data.
#[derive(Clone, Debug, PartialEq)]
pub struct OptimizerState {
    /// Update rule.
    pub kind: OptimizerKind,
    /// Names of the trained parameters that decay, in order.
    pub decayed: Vec<String>,
    /// Names of the trained parameters that do not decay, in order.
    pub not_decayed: Vec<String>,
    /// Updates of each parameter.
    pub steps: BTreeMap<String, u32>,
    /// `<slot>/<parameter>`; parameters never updated are absent.
    pub slots: Vec<Tensor>,
}

/// The running optimizer: for each entry of the store its moments (empty until the first update).
#[derive(Debug)]
pub(crate) struct Optimizer {
    kind: OptimizerKind,
    moments: Vec<[Vec<f32>; 2]>,
    steps: Vec<u32>,
}

impl OptimizerKind {
    /// Names of the moment tensors, as PyTorch's optimizers have them.
    fn slots(self) -> &'static [&'static str] {
        match self {
            OptimizerKind::Adamw => &["exp_avg", "exp_avg_sq"],
            OptimizerKind::Sgd => &["momentum_buffer"],
            OptimizerKind::Lars => &["mu"],
        }
    }
}

fn is_trained(entry: &ParameterEntry) -> bool {
    entry.role == Role::Parameter
}

impl Optimizer {
    pub fn new(kind: OptimizerKind, store: &Store) -> Optimizer {
        let moments = store.entries().iter().map(|_| [Vec::new(), Vec::new()]).collect();
        Optimizer { kind, moments, steps: vec![0; store.entries().len()] }
    }

    /// Moments each trained value has once it was updated.
    pub fn moments_per_value(kind: OptimizerKind) -> usize {
        kind.slots().len()
    }

    /// Updates these entries of student and teacher. `gradient(i)` is the gradient of entry i; the square of its norm before clipping goes to
    /// `squares[i]`.
    pub fn update<'g>(
        &mut self,
        entries: &[usize],
        squares: &mut [f64],
        pool: &Pool,
        student: &mut Store,
        teacher: &mut Store,
        parameters: &StepParameters,
        clip: f32,
        gradient: impl Fn(usize) -> Option<&'g [f32]>,
    ) {
        for &i in entries {
            let entry = &student.entries()[i];
            let (trained, averaged) = (is_trained(entry), matches!(entry.role, Role::Parameter | Role::Frozen));
            let frozen = parameters.freeze_last_layer && entry.is_last_layer();
            let decay = if entry.is_decayed() { parameters.weight_decay } else { 0.0 };
            let matrix = entry.shape.len() > 1;
            let mut rule = UpdateRule::Keep;
            let g = gradient(i).filter(|_| trained);
            if let Some(g) = g {
                let norm2 = sum_squares(pool, g);
                squares[i] = norm2;
                if !frozen {
                    let scale = clip_factor(norm2, clip);
                    self.steps[i] += 1;
                    let first = self.steps[i] == 1;
                    let p = student.values(i);
                    for slot in &mut self.moments[i][..self.kind.slots().len()] {
                        slot.resize(p.len(), 0.0);
                    }
                    let rate = parameters.learning_rate as f32;
                    rule = match self.kind {
                        OptimizerKind::Adamw => {
                            UpdateRule::Adamw { scale, rates: AdamRates::new(parameters.learning_rate, decay, self.steps[i]) }
                        }
                        OptimizerKind::Sgd => UpdateRule::Momentum {
                            scale,
                            adapt: 1.0,
                            decay: decay as f32,
                            momentum: if first { 0.0 } else { MOMENTUM },
                            rate,
                        },
                        OptimizerKind::Lars if matrix => {
                            let decay = decay as f32;
                            UpdateRule::Momentum { scale, adapt: lars_factor(pool, p, g, scale, decay), decay, momentum: MOMENTUM, rate }
                        }
                        OptimizerKind::Lars => UpdateRule::Momentum { scale, adapt: 1.0, decay: 0.0, momentum: MOMENTUM, rate },
                    };
                }
            }
            if matches!(rule, UpdateRule::Keep) && !averaged {
                continue;
            }
            let [m, v] = &mut self.moments[i];
            let teacher = if averaged { teacher.values_mut(i).as_mut_slice() } else { &mut [] };
            let pieces = ParameterRange::split(student.values_mut(i), m, v, g.unwrap_or(&[]), teacher);
            let (keep, new) = (parameters.momentum as f32, (1.0 - parameters.momentum) as f32);
            let work = |piece: ParameterRange| {
                rule.apply(piece.p, piece.m, piece.v, piece.g);
                // The new values are in the cache.
                moving_average(piece.t, piece.p, keep, new);
            };
            if pieces.len() > 1 && pool.threads() > 1 { pieces.into_par_iter().for_each(work) } else { pieces.into_iter().for_each(work) }
        }
    }

    /// Updates of entry `i` so far.
    pub fn steps(&self, i: usize) -> u32 {
        self.steps[i]
    }

    /// Notes an update of entry `i`, of `len` values, that was made elsewhere.
    pub fn count(&mut self, i: usize, len: usize) {
        self.steps[i] += 1;
        for moment in &mut self.moments[i][..self.kind.slots().len()] {
            moment.resize(len, 0.0);
        }
    }

    /// Moment `slot` of entry `i`; empty before its first update.
    pub fn moment(&self, i: usize, slot: usize) -> &[f32] {
        &self.moments[i][slot]
    }

    /// Moment `slot` of entry `i`, to change.
    pub fn moment_mut(&mut self, i: usize, slot: usize) -> &mut [f32] {
        &mut self.moments[i][slot]
    }

    /// The state, with what `values` makes of the moments.
    pub fn state(&self, store: &Store, values: impl Fn(TensorView) -> TensorValues) -> OptimizerState {
        let steps = trained(store).map(|(i, e)| (e.name.clone(), self.steps[i])).collect();
        let slots = self.slots(store).map(|(i, slot, moment)| {
            let entry = &store.entries()[i];
            Tensor { name: format!("{slot}/{}", entry.name), shape: entry.shape.clone(), values: values(TensorView::F32(moment)) }
        });
        OptimizerState { kind: self.kind, decayed: names(store, true), not_decayed: names(store, false), steps, slots: slots.collect() }
    }

    /// Entry, name and values of each moment, in the order of the state.
    pub fn slots<'a>(&'a self, store: &'a Store) -> impl Iterator<Item = (usize, &'static str, &'a [f32])> {
        let updated = trained(store).filter(|(i, _)| self.steps[*i] > 0);
        updated.flat_map(|(i, _)| self.kind.slots().iter().zip(&self.moments[i]).map(move |(slot, values)| (i, *slot, values.as_slice())))
    }

    /// The optimizer of a state; nothing is changed when it does not fit.
    pub fn from_state(kind: OptimizerKind, store: &Store, state: OptimizerState) -> Result<Optimizer> {
        if state.kind != kind {
            return Err(Error::State(format!("the optimizer state is of {:?}, the run uses {kind:?}", state.kind)));
        }
        let mut optimizer = Optimizer::new(kind, store);
        if names(store, true) != state.decayed || names(store, false) != state.not_decayed {
            return Err(Error::State("the optimizer state lists other parameters than this architecture trains".into()));
        }
        let trained = |name: &str| {
            let found = store.position(name).filter(|&i| is_trained(&store.entries()[i]));
            found.ok_or_else(|| Error::State(format!("the optimizer state names `{name}`, which is not trained here")))
        };
        for (name, steps) in state.steps {
            let i = trained(&name)?;
            optimizer.steps[i] = steps;
        }
        for tensor in state.slots {
            let (slot, name) = tensor.name.split_once('/').unwrap_or(("", &tensor.name));
            let i = trained(name)?;
            let known = kind.slots().iter().position(|s| *s == slot);
            let known = known.ok_or_else(|| Error::State(format!("{kind:?} has no moment `{slot}` (of `{name}`)")))?;
            match tensor.values {
                TensorValues::F32(v) if v.len() == store.entries()[i].volume() => optimizer.moments[i][known] = v,
                _ => {
                    return Err(Error::State(format!(
                        "moment `{}` must have shape {:?}, got {:?}",
                        tensor.name,
                        store.entries()[i].shape,
                        tensor.shape
                    )));
                }
            }
        }
        for (i, entry) in store.entries().iter().enumerate() {
            let complete = optimizer.moments[i][..kind.slots().len()].iter().all(|m| !m.is_empty());
            if is_trained(entry) && optimizer.steps[i] > 0 && !complete {
                return Err(Error::State(format!("the optimizer state has no moments for `{}`", entry.name)));
            }
        }
        Ok(optimizer)
    }
}

/// Trained parameters with their numbers, in the order of the state dict.
fn trained(store: &Store) -> impl Iterator<Item = (usize, &ParameterEntry)> {
    store.entries().iter().enumerate().filter(|(_, entry)| is_trained(entry))
}

/// Trained parameters that decay, or those that do not, in the order of the state dict.
fn names(store: &Store, decayed: bool) -> Vec<String> {
    trained(store).filter(|(_, e)| e.is_decayed() == decayed).map(|(_, e)| e.name.clone()).collect()
}

/// Elements of one piece of parallel work: with moments, gradient and teacher a third of a megabyte, which stays in the cache until the teacher has
/// followed.
const PIECE: usize = 16384;

/// Change of a parameter before the teacher follows it.
#[derive(Clone, Copy)]
enum UpdateRule {
    Keep,
    Adamw { scale: f32, rates: AdamRates },
    Momentum { scale: f32, adapt: f32, decay: f32, momentum: f32, rate: f32 },
}

impl UpdateRule {
    fn apply(self, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
        match self {
            UpdateRule::Keep => {}
            UpdateRule::Adamw { scale, rates } => adamw(p, m, v, g, scale, rates.keep, rates.step, rates.bias2),
            UpdateRule::Momentum { scale, adapt, decay, momentum, rate } => momentum_step(p, m, g, scale, adapt, decay, momentum, rate),
        }
    }
}

/// One range of a parameter, its moments, its gradient and its teacher; slices are empty where there is none.
struct ParameterRange<'a> {
    p: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
    t: &'a mut [f32],
}

impl<'a> ParameterRange<'a> {
    fn split(p: &'a mut [f32], m: &'a mut [f32], v: &'a mut [f32], g: &'a [f32], t: &'a mut [f32]) -> Vec<ParameterRange<'a>> {
        let (mut m, mut v, mut t) = (m.chunks_mut(PIECE), v.chunks_mut(PIECE), t.chunks_mut(PIECE));
        let mut g = g.chunks(PIECE);
        let piece = |p| ParameterRange {
            p,
            m: m.next().unwrap_or_default(),
            v: v.next().unwrap_or_default(),
            g: g.next().unwrap_or_default(),
            t: t.next().unwrap_or_default(),
        };
        p.chunks_mut(PIECE).map(piece).collect()
    }
}

/// Sum of squares in fixed pieces, in f64.
fn sum_squares(pool: &Pool, x: &[f32]) -> f64 {
    if x.len() <= PIECE || pool.threads() == 1 {
        return x.chunks(PIECE).map(lanes::sum_squares).sum();
    }
    x.par_chunks(PIECE).map(lanes::sum_squares).collect::<Vec<f64>>().iter().sum()
}

fn clip_factor(norm2: f64, clip: f32) -> f32 {
    let factor = f64::from(clip) / (norm2.sqrt() + 1e-6);
    if clip > 0.0 && factor < 1.0 { factor as f32 } else { 1.0 }
}

/// η·|p|/|g + wd·p|, or 1 where either norm is 0.
fn lars_factor(pool: &Pool, p: &[f32], g: &[f32], scale: f32, decay: f32) -> f32 {
    let mut decayed = pool.scratch(p.len());
    for ((d, g), p) in decayed.iter_mut().zip(g).zip(p) {
        *d = g * scale + decay * p;
    }
    let (p_norm, g_norm) = (sum_squares(pool, p).sqrt(), sum_squares(pool, &decayed).sqrt());
    if p_norm > 0.0 && g_norm > 0.0 { (LARS_ETA * p_norm / g_norm) as f32 } else { 1.0 }
}

/// Scalars of an AdamW update.
#[derive(Clone, Copy)]
pub(crate) struct AdamRates {
    pub keep: f32,
    pub step: f32,
    pub bias2: f32,
}

impl AdamRates {
    /// Scalars of update number `t`, from 1.
    pub fn new(learning_rate: f64, decay: f64, t: u32) -> AdamRates {
        let t = f64::from(t);
        AdamRates {
            keep: (1.0 - learning_rate * decay) as f32,
            step: (learning_rate / (1.0 - BETA1.powf(t))) as f32,
            bias2: (1.0 - BETA2.powf(t)).sqrt() as f32,
        }
    }
}

multiversion! {
    fn adamw(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], scale: f32, keep: f32, step: f32, bias2: f32) {
        const B1: f32 = BETA1 as f32;
        const B2: f32 = BETA2 as f32;
        // From f64: 1 − 0.999 in f32 is off in the fifth digit.
        const C1: f32 = (1.0 - BETA1) as f32;
        const C2: f32 = (1.0 - BETA2) as f32;
        let n = p.len();
        let (m, v, g) = (&mut m[..n], &mut v[..n], &g[..n]);
        for i in 0..n {
            let grad = g[i] * scale;
            m[i] = madd::<FMA>(B1, m[i], C1 * grad);
            v[i] = madd::<FMA>(B2, v[i], C2 * grad * grad);
            p[i] = p[i] * keep - step * m[i] / (v[i].sqrt() / bias2 + EPS);
        }
    }
}

multiversion! {
    fn momentum_step(p: &mut [f32], m: &mut [f32], g: &[f32], scale: f32, adapt: f32, decay: f32, momentum: f32, rate: f32) {
        let n = p.len();
        let (m, g) = (&mut m[..n], &g[..n]);
        for i in 0..n {
            let grad = (g[i] * scale + decay * p[i]) * adapt;
            m[i] = momentum * m[i] + grad;
            p[i] -= rate * m[i];
        }
    }
}

multiversion! {
    fn moving_average(t: &mut [f32], p: &[f32], keep: f32, new: f32) {
        let n = t.len();
        let p = &p[..n];
        for i in 0..n { t[i] = t[i] * keep + new * p[i]; }
    }
}
