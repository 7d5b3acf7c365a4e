//! The contract of an executor.

use std::borrow::Cow;
use std::fmt::Debug;

use esvit_graph::{Leaf, NodeTime, Slice};

use crate::network::CompiledStep;
use crate::spec::TrainerSpec;
use crate::state::TrainingState;
use crate::{Result, StepParameters, StepStats};

/// Arguments that all calls of one step share.
#[derive(Clone, Copy)]
pub(crate) struct StepContext<'a> {
    pub spec: &'a TrainerSpec,
    pub step: &'a CompiledStep,
    pub parameters: &'a StepParameters,
}

/// Runs a step: [`begin`](Executor::begin), every [pass](Executor::run_pass), [`finish`](Executor::finish).
pub(crate) trait Executor: Debug + Send {
    /// Starts a step.
    fn begin(&mut self, context: &StepContext, state: &TrainingState);

    /// Runs one pass on these leaves: losses, gradients and what else the update reads are added to those of the step. Without accumulation
    /// parameters may be updated meanwhile. False when the loss is not finite, as far as the device can tell before the end of the step.
    fn run_pass(
        &mut self,
        context: &StepContext,
        state: &mut TrainingState,
        pass: usize,
        leaves: &[(Leaf, Slice)],
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<bool>;

    /// Updates what the passes have not updated yet, moves the averages, and reports. When the loss is not finite nothing is changed.
    fn finish(&mut self, context: &StepContext, state: &mut TrainingState, times: Option<&mut Vec<NodeTime>>) -> Result<StepStats>;

    /// Makes this the current state.
    fn upload(&mut self, state: &TrainingState);

    /// Brings `state` up to date with the current one.
    fn download(&self, state: &mut TrainingState) -> Result<()>;

    /// Gradient of an entry in the last step, before clipping; with accumulation the mean over the passes. `None` before the first step.
    fn gradient(&self, step: &CompiledStep, entry: usize) -> Result<Option<Cow<'_, [f32]>>>;

    /// Teacher rows the regions were matched with in the last pass; `None` before the first step, and without a region loss.
    fn matches(&self, step: &CompiledStep) -> Result<Option<Cow<'_, [u32]>>>;

    /// Gives up what depends on the program, which was replaced.
    fn reset_program(&mut self);
}
