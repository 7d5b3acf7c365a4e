//! View loss and region loss: two lists of pairs for one operator.
//!
//! A crop's student rows are paired with the teacher rows of every global crop but its own. View: the rows of the same image.
//! Region: the teacher token that [`RegionMatch`] found. Mixup: every image of the batch, weighted by the mixing matrix.
//!
//! Source: Li et al. 2022 (EsViT), <https://arxiv.org/abs/2106.09785>, eq. 1-3; `DINOLoss`, `DDINOLoss` of microsoft/esvit.

use esvit_graph::{DType, Graph, Result, Value};
use esvit_ops::prototype_loss::PrototypeLoss;
use esvit_ops::region_match::RegionMatch;

/// Results of a loss term.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The loss, `[1]`.
    pub loss: Value,
    /// Mean teacher logit, which moves the center, `[K]`.
    pub teacher_mean: Value,
    /// Mean entropy of the teacher in nats, `[1]`.
    pub entropy: Value,
}

/// Bottleneck rows and prototypes of one network.
#[derive(Clone, Copy, Debug)]
pub struct Projection {
    /// Unit rows, `[rows, D]`.
    pub z: Value,
    /// Directions of the prototypes, `[K, D]`.
    pub direction: Value,
    /// Magnitudes of the prototypes, `[K, 1]`.
    pub magnitude: Value,
}

/// A list of pairs whose places are known when the program is built.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// First pair of every student row, and the number of pairs at the end.
    pub offsets: Vec<u32>,
    /// Teacher row of every pair.
    pub teacher: Vec<u32>,
    /// Weight of every pair.
    pub weight: Vec<f32>,
}

/// Number of (global crop, other crop) pairs: the loss is the mean over them.
fn crop_pairs(crops: usize) -> usize {
    (0..crops).map(|crop| RegionMatch::targets(crop).count()).sum()
}

/// Pairs of the view loss: the same image in every other global crop. Weights sum to `share`.
pub fn view_pairs(batch: usize, crops: usize, share: f64) -> Pairs {
    let weight = (share / (batch * crop_pairs(crops)) as f64) as f32;
    let mut pairs = Pairs { offsets: vec![0], teacher: Vec::new(), weight: Vec::new() };
    for crop in 0..crops {
        for image in 0..batch {
            for q in RegionMatch::targets(crop) {
                pairs.teacher.push((q * batch + image) as u32);
                pairs.weight.push(weight);
            }
            pairs.offsets.push(pairs.teacher.len() as u32);
        }
    }
    pairs
}

/// Pairs of the view loss with mixup: every image of the batch in every other global crop. The weights depend on the
/// step; [`mixup_weights`] makes them in this order.
pub fn mixup_pairs(batch: usize, crops: usize) -> Pairs {
    let mut pairs = Pairs { offsets: vec![0], teacher: Vec::new(), weight: Vec::new() };
    for crop in 0..crops {
        for _ in 0..batch {
            for q in RegionMatch::targets(crop) {
                pairs.teacher.extend((0..batch).map(|image| (q * batch + image) as u32));
            }
            pairs.offsets.push(pairs.teacher.len() as u32);
        }
    }
    pairs.weight = mixup_weights(batch, &vec![1.0; crops]);
    pairs
}

/// Weights of [`mixup_pairs`] when crop c is mixed as `λ_c·x + (1 − λ_c)·x[reversed batch]`.
pub fn mixup_weights(batch: usize, lambda: &[f32]) -> Vec<f32> {
    let share = 1.0 / (batch * crop_pairs(lambda.len())) as f32;
    let mut weights = Vec::new();
    for (crop, &lambda) in lambda.iter().enumerate() {
        for student in 0..batch {
            for _ in RegionMatch::targets(crop) {
                weights.extend((0..batch).map(|teacher| {
                    let own = if teacher == student { lambda } else { 0.0 };
                    let other = if teacher == batch - 1 - student { 1.0 - lambda } else { 0.0 };
                    share * (own + other)
                }));
            }
        }
    }
    weights
}

/// Pairs of the region loss; the teacher rows come from a [`RegionMatch`] at run time, in this order. Weights sum to `share`.
pub fn region_pairs(matching: &RegionMatch, share: f64) -> Pairs {
    let mut pairs = Pairs { offsets: vec![0], teacher: Vec::new(), weight: Vec::new() };
    for (crop, &tokens) in matching.crop_tokens.iter().enumerate() {
        let weight = (share / (matching.batch * crop_pairs(matching.crop_tokens.len()) * tokens) as f64) as f32;
        for _ in 0..matching.batch * tokens {
            pairs.weight.extend(RegionMatch::targets(crop).map(|_| weight));
            pairs.offsets.push(pairs.weight.len() as u32);
        }
    }
    pairs
}

/// Adds a loss term. `center` is a leaf `[K]`, `temperature` a leaf `[1]`; `pair_teacher` and `pair_weight` are `[P]`; at most `logit_bytes`
/// of logits are stored for the backward pass.
pub fn term(
    g: &mut Graph,
    student: Projection,
    teacher: Projection,
    student_temperature: f32,
    center: Value,
    temperature: Value,
    offsets: &[u32],
    pair_teacher: Value,
    pair_weight: Value,
    logit_bytes: usize,
) -> Result<Term> {
    let op = PrototypeLoss { student_temperature, offsets: offsets.into(), keep: logit_bytes };
    let networks = [student, teacher].map(|Projection { z, direction, magnitude }| [z, direction, magnitude]);
    let results = g.apply(op, &[&networks.concat()[..], &[center, temperature, pair_teacher, pair_weight]].concat())?;
    Ok(Term { loss: results[0], teacher_mean: results[3], entropy: results[4] })
}

/// Leaves for a list of pairs: `{name}.teacher` (when its rows are known) and `{name}.weight`.
pub fn pair_leaves(g: &mut Graph, name: &str, pairs: &Pairs) -> Result<(Option<Value>, Value)> {
    let n = [pairs.weight.len()];
    let weight = g.leaf(&format!("{name}.weight"), &n, DType::F32)?;
    let teacher = match pairs.teacher.is_empty() {
        true => None,
        false => Some(g.leaf(&format!("{name}.teacher"), &n, DType::U32)?),
    };
    Ok((teacher, weight))
}
