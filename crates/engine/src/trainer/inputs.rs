//! Inputs of a step besides pixels, parameters and centers: randomness, temperature, weights of the pairs.

use esvit_graph::{Leaf, Slice};
use esvit_ops::region_match::GLOBAL_CROPS;

use crate::StepParameters;
use crate::network::CompiledStep;
use crate::pixels::PassPixels;
use crate::random::Stream;
use crate::spec::TrainerSpec;

/// Inputs of a step, or of one of its passes.
#[derive(Clone, Debug)]
pub(super) struct StepInputs {
    /// For each residual branch a factor for every image, 0 or 1/keep; empty where its rate is 0.
    factors: Vec<Vec<f32>>,
    /// Neighbors of each layer that samples them: the same in all passes.
    neighbors: Vec<Vec<u32>>,
    temperature: [f32; 1],
    /// Weights of the view's pairs, where mixup changes them.
    view_weights: Option<Vec<f32>>,
}

impl StepInputs {
    /// Inputs of a whole step. `neighbors` are sampled unless they are given.
    pub fn new(
        spec: &TrainerSpec,
        step: &CompiledStep,
        parameters: &StepParameters,
        mixup: Option<&[f32]>,
        neighbors: Option<Vec<Vec<u32>>>,
    ) -> StepInputs {
        StepInputs {
            factors: drop_path_factors(spec, step, parameters.step),
            neighbors: neighbors.unwrap_or_else(|| sample_neighbors(spec, step, parameters)),
            temperature: [parameters.teacher_temperature as f32],
            view_weights: mixup.map(|lambda| esvit_nn::loss::mixup_weights(spec.crops.batch, lambda)),
        }
    }

    /// Inputs of one pass: it takes a run of images of each crop.
    pub fn of_pass(&self, spec: &TrainerSpec, pass: usize) -> StepInputs {
        let (batch, passes) = (spec.crops.batch, spec.accumulate);
        let share = |all: &Vec<f32>| all.chunks(batch * passes).flat_map(|crop| &crop[pass * batch..(pass + 1) * batch]).copied().collect();
        StepInputs { factors: self.factors.iter().map(share).collect(), ..self.clone() }
    }

    /// Slices of the leaves that change from pass to pass.
    pub fn leaves<'a>(&'a self, step: &'a CompiledStep, pixels: PassPixels<'a>) -> Vec<(Leaf, Slice<'a>)> {
        let handles = &step.leaves;
        let mut leaves = vec![
            (handles.student_pixels, pixels.student),
            (handles.teacher_pixels, pixels.teacher),
            (handles.temperature, Slice::F32(&self.temperature)),
            (handles.view_weights, Slice::F32(self.view_weights.as_ref().unwrap_or(&step.view_pairs.weight))),
        ];
        leaves.extend(handles.drop_path.iter().zip(&self.factors).map(|(leaf, factors)| (*leaf, Slice::F32(factors))));
        leaves.extend(handles.neighbors.iter().zip(&self.neighbors).map(|(leaf, neighbors)| (*leaf, Slice::U32(neighbors))));
        leaves.into_iter().filter_map(|(leaf, slice)| Some((leaf?, slice))).collect()
    }
}

/// For each layer that samples its windows' neighbors, a number for each segment: 0 for all neighbors, 1 to 8 for one.
fn sample_neighbors(spec: &TrainerSpec, step: &CompiledStep, parameters: &StepParameters) -> Vec<Vec<u32>> {
    let sample = |(layer, segments): (usize, &usize)| {
        // The purpose keys the numbers of runs that exist: its British spelling stays.
        let mut stream = Stream::new(spec.seed, "neighbours", &[parameters.step, layer as u64]);
        let mut draw = || if parameters.progress < step.sample_until { 1 + (8.0 * stream.uniform()) as u32 } else { 0 };
        (0..*segments).map(|_| draw()).collect()
    };
    step.sampled_segments.iter().enumerate().map(sample).collect()
}

/// For each residual branch a factor for every image of the step: 0 or 1/keep.
fn drop_path_factors(spec: &TrainerSpec, step: &CompiledStep, number: u64) -> Vec<Vec<f32>> {
    let images = spec.accumulate * spec.crops.batch * (GLOBAL_CROPS + spec.crops.local_count);
    let branch = |(branch, &rate): (usize, &f64)| {
        if rate == 0.0 {
            return Vec::new();
        }
        let keep = 1.0 - rate as f32;
        let mut stream = Stream::new(spec.seed, "drop_path", &[number, branch as u64]);
        (0..images).map(|_| (keep + stream.uniform()).floor() / keep).collect()
    };
    step.drop_path.iter().enumerate().map(branch).collect()
}
