//! Parameters of a step, and what it reports.

/// Values of the schedules for one step.
#[derive(Clone, Copy, Debug)]
pub struct StepParameters {
    /// Global step, from 0: keys stochastic depth and sampled neighbors.
    pub step: u64,
    /// Share of the training that is done: decides when neighbors are no longer sampled.
    pub progress: f64,
    /// Learning rate of all parameters.
    pub learning_rate: f64,
    /// Weight decay of the parameters that decay.
    pub weight_decay: f64,
    /// Momentum of the teacher's moving average.
    pub momentum: f64,
    /// Temperature of the teacher's distributions.
    pub teacher_temperature: f64,
    /// While true, prototypes and their magnitudes are not updated.
    pub freeze_last_layer: bool,
}

/// Report of a step.
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
    /// Whether the optimizer passed over this step, because scaled gradients overflowed ([`LossScaler`](crate::LossScaler)).
    pub skipped: bool,
    /// Factor the loss was scaled with; 1 in single precision and on a CPU.
    pub loss_scale: f64,
}
