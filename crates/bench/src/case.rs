//! Cases: what can be measured, by name.

/// A measurement that `bench/peer/` makes too, by the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BenchCase {
    /// Teacher, student, loss, backward, clipping, optimizer, teacher's average, centers.
    Step,
    /// Pooled features of `batch` images of the global crops' size.
    Inference,
    /// Last layer, view and (if the specification has it) region loss of one step, matching included, forward and backward.
    Loss,
    /// Window attention of the first stage, shifted, on the global crops' token grid.
    Attention {
        /// With the products in front (q, k, v) and behind.
        projections: bool,
        /// Forward and backward.
        backward: bool,
    },
}

impl BenchCase {
    /// All cases.
    pub const ALL: [BenchCase; 7] = [
        BenchCase::Step,
        BenchCase::Inference,
        BenchCase::Loss,
        BenchCase::Attention { projections: true, backward: true },
        BenchCase::Attention { projections: true, backward: false },
        BenchCase::Attention { projections: false, backward: true },
        BenchCase::Attention { projections: false, backward: false },
    ];

    /// Name in tables, in JSON and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            BenchCase::Step => "step",
            BenchCase::Inference => "inference",
            BenchCase::Loss => "loss",
            BenchCase::Attention { projections: true, backward: true } => "window_attention",
            BenchCase::Attention { projections: true, backward: false } => "window_attention_forward",
            BenchCase::Attention { projections: false, backward: true } => "window_attention_core",
            BenchCase::Attention { projections: false, backward: false } => "window_attention_core_forward",
        }
    }
}
