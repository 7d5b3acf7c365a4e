//! Parameters of a step, and what it reports.

use serde::{Deserialize, Serialize};

/// Values of the schedules for one step.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StepParameters {
    /// Global step, from 0: keys the random numbers of stochastic depth and of drawn neighbors.
    pub step: u64,
    /// Share of the training that is done, from 0 to 1: decides when neighbors are no longer drawn.
    pub progress: f64,
    /// Learning rate of all parameters.
    pub learning_rate: f64,
    /// Weight decay of the parameters that decay.
    pub weight_decay: f64,
    /// Momentum of the teacher's moving average.
    pub momentum: f64,
    /// Temperature of the teacher's softmax.
    pub teacher_temperature: f64,
    /// While true, prototypes and their magnitudes are not updated.
    pub freeze_last_layer: bool,
}

/// Report of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct StepStats {
    /// The loss: the sum of the two terms.
    pub loss: f64,
    /// The view term, weighted.
    pub view_loss: f64,
    /// The region term, weighted; 0 without it.
    pub region_loss: f64,
    /// Mean entropy of the teacher's view distribution, in nats; ln K means uniform.
    pub teacher_entropy: f64,
    /// Mean over the channels of the standard deviation of the teacher's l2-normalized view features, times the root of C: 0 is collapse.
    pub feature_deviation: f64,
    /// L2 norm over all gradients before clipping.
    pub gradient_norm: f64,
    /// Whether the loss is finite; if not, no parameter, moment or center was changed.
    pub finite: bool,
    /// Whether the optimizer passed over this step, because scaled gradients overflowed ([`LossScaler`](crate::LossScaler)).
    pub skipped: bool,
    /// Factor that scaled the loss; 1 in single precision and on a CPU.
    pub loss_scale: f64,
}
