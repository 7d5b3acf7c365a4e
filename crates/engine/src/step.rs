//! What a step is given besides pixels, and what it tells.

use std::collections::BTreeMap;
use std::time::Duration;

use esvit_graph::NodeTime;

/// Values of the schedules for one step.
#[derive(Clone, Copy, Debug)]
pub struct Knobs {
    /// Global step, from 0: keys stochastic depth and drawn neighbours.
    pub step: u64,
    /// Share of the training that is done: decides when neighbours are no longer drawn.
    pub progress: f64,
    /// Of all parameters.
    pub learning_rate: f64,
    /// Of the parameters that decay.
    pub weight_decay: f64,
    /// Of the teacher's moving average.
    pub momentum: f64,
    /// T.
    pub teacher_temperature: f64,
    /// While true, prototypes and their gains are not updated.
    pub freeze_last_layer: bool,
}

/// What a step tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepStats {
    /// View and region term.
    pub loss: f64,
    /// The view term, weighted.
    pub view_loss: f64,
    /// The region term, weighted; 0 without it.
    pub region_loss: f64,
    /// Mean entropy of the teacher's view distribution, in nats.
    pub teacher_entropy: f64,
    /// Spread of the teacher's view features: 0 is collapse.
    pub feature_deviation: f64,
    /// Norm over all gradients before clipping.
    pub gradient_norm: f64,
    /// Whether the loss is finite; if not, nothing was changed.
    pub finite: bool,
    /// Whether the optimiser passed over this step, because scaled gradients overflowed ([`LossScaler`]).
    pub skipped: bool,
    /// What the loss was scaled with; 1 in single precision and on a CPU.
    pub loss_scale: f64,
}

/// Time and arithmetic of one operator in one part of the step.
#[derive(Clone, Debug)]
pub struct ProfileRow {
    /// Part of the step.
    pub phase: &'static str,
    /// Operator.
    pub operator: &'static str,
    /// Applications.
    pub calls: u32,
    /// Wall time.
    pub time: Duration,
    /// Matrix-product arithmetic.
    pub flops: u64,
}

impl ProfileRow {
    /// The nodes' times, added by part and operator, largest first.
    pub(crate) fn add_up(times: &[NodeTime]) -> Vec<ProfileRow> {
        let mut rows: BTreeMap<(&str, &str), ProfileRow> = BTreeMap::new();
        for t in times {
            let row = rows.entry((t.phase, t.op));
            let row = row.or_insert(ProfileRow { phase: t.phase, operator: t.op, calls: 0, time: Duration::ZERO, flops: 0 });
            row.calls += 1;
            row.time += t.time;
            row.flops += t.flops;
        }
        let mut rows: Vec<ProfileRow> = rows.into_values().collect();
        rows.sort_by_key(|r| std::cmp::Reverse(r.time));
        rows
    }
}
