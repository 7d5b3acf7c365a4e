//! Moving averages that follow a step: centers and running statistics. The rule is stated once; a device carries it out.

use esvit_nn::{Parameters, RunningStatistics};
use esvit_ops::batch_norm::MOMENTUM;

/// `y ← keep·y + x·share[0]·share[1]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MovingAverage {
    /// The average y that moves.
    pub target: AverageTarget,
    /// The new value x.
    pub source: AverageSource,
    pub keep: f32,
    /// Factors of x, applied one after the other.
    pub share: [f32; 2],
}

/// Part of the training state that is averaged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AverageTarget {
    /// A center, by its position.
    Center(usize),
    /// An entry of the student.
    Student(usize),
    /// An entry of the teacher.
    Teacher(usize),
}

/// Result of a step that goes into an average.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AverageSource {
    /// The teacher's mean logits over all passes, by the position of their center.
    TeacherMean(usize),
    /// Mean of the rows a batch norm saw in a pass; batch norms are numbered from the student's first to the teacher's last.
    BatchMean { pass: usize, norm: usize },
    /// Biased variance of these rows.
    BatchVariance { pass: usize, norm: usize },
    /// A one, for counts.
    One,
}

/// Averages of the centers, with this momentum.
pub(crate) fn of_centers(count: usize, momentum: f32) -> impl Iterator<Item = MovingAverage> {
    (0..count).map(move |i| MovingAverage {
        target: AverageTarget::Center(i),
        source: AverageSource::TeacherMean(i),
        keep: momentum,
        share: [1.0 - momentum, 1.0],
    })
}

/// Running statistics of both networks' batch norms, pass by pass: momentum 0.1, the unbiased variance, and the number of batches.
pub(crate) fn of_statistics(
    passes: usize,
    student: (&Parameters, &[RunningStatistics]),
    teacher: (&Parameters, &[RunningStatistics]),
) -> Vec<MovingAverage> {
    let mut averages = Vec::new();
    for pass in 0..passes {
        let networks = [(student, AverageTarget::Student as fn(usize) -> _), (teacher, AverageTarget::Teacher)];
        let norms = networks.iter().flat_map(|((parameters, statistics), target)| statistics.iter().map(move |s| (*parameters, s, target)));
        for (norm, (parameters, s, target)) in norms.enumerate() {
            let unbiased = s.rows as f32 / (s.rows as f32 - 1.0).max(1.0);
            let buffers = [
                ("running_mean", AverageSource::BatchMean { pass, norm }, 1.0 - MOMENTUM, [MOMENTUM, 1.0]),
                ("running_var", AverageSource::BatchVariance { pass, norm }, 1.0 - MOMENTUM, [MOMENTUM, unbiased]),
                ("num_batches_tracked", AverageSource::One, 1.0, [1.0, 1.0]),
            ];
            for (buffer, source, keep, share) in buffers {
                let name = format!("{}.{buffer}", s.path);
                if let Some(entry) = parameters.entries.iter().position(|e| e.name == name) {
                    averages.push(MovingAverage { target: target(entry), source, keep, share });
                }
            }
        }
    }
    averages
}
