//! Recordings: dispatches that are ready to run, replayed every step.

use std::ops::Range;
use std::sync::Arc;

use crate::pipeline::Pipeline;
use crate::{Gpu, Result};

/// Workgroups of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid(pub [u32; 3]);

/// Workgroups that one axis of a grid can have everywhere.
const AXIS: u64 = 65_535;

impl Grid {
    /// `count` workgroups in x and, where one axis is not enough, y: kernels fold them back as `wg.y·grid.x + wg.x` and
    /// leave when that is too large.
    pub fn fold(count: usize) -> Grid {
        let count = (count as u64).max(1);
        let rows = count.div_ceil(AXIS);
        Grid([count.div_ceil(rows) as u32, rows as u32, 1])
    }

    /// One thread for each of `count` elements, in workgroups of `threads`.
    pub fn elements(count: usize, threads: usize) -> Grid {
        Grid::fold(count.div_ceil(threads))
    }
}

/// A dispatch with its bindings.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub pipeline: Arc<Pipeline>,
    pub group: wgpu::BindGroup,
    pub grid: Grid,
    /// Number of its operator.
    pub operator: usize,
}

/// Time that the dispatches of one operator took, with that of a submission.
#[derive(Clone, Copy, Debug)]
pub struct OperatorTime {
    /// Number of the operator, from 0, in the order of [`Recorder::begin`](crate::Recorder::begin).
    pub operator: usize,
    /// Name of the operator.
    pub name: &'static str,
    /// Part of the step.
    pub phase: &'static str,
    /// Wall time.
    pub seconds: f64,
}

/// Dispatches that are ready to run, any number of times.
#[derive(Debug)]
pub struct Recording {
    pub(crate) dispatches: Vec<Dispatch>,
    /// Name and part of the step of every operator.
    pub(crate) operators: Vec<(&'static str, &'static str)>,
}

impl Recording {
    /// Submits all dispatches at once, and does not wait for them.
    ///
    /// # Errors
    /// When the GPU was lost before.
    pub fn run(&self, gpu: &Gpu) -> Result<()> {
        gpu.check()?;
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("step") });
        self.encode(&mut encoder, 0..self.dispatches.len());
        gpu.queue().submit([encoder.finish()]);
        gpu.check()
    }

    /// Runs operator by operator and waits for each. Operators without dispatches are left out.
    ///
    /// # Errors
    /// When the GPU was lost.
    pub fn profile(&self, gpu: &Gpu) -> Result<Vec<OperatorTime>> {
        gpu.wait()?;
        let mut times = Vec::new();
        let mut from = 0;
        while from < self.dispatches.len() {
            let operator = self.dispatches[from].operator;
            let to = from + self.dispatches[from..].iter().take_while(|d| d.operator == operator).count();
            let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("operator") });
            self.encode(&mut encoder, from..to);
            let commands = encoder.finish();
            let started = std::time::Instant::now();
            gpu.queue().submit([commands]);
            gpu.wait()?;
            let (name, phase) = self.operators[operator];
            times.push(OperatorTime { operator, name, phase, seconds: started.elapsed().as_secs_f64() });
            from = to;
        }
        Ok(times)
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder, range: Range<usize>) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: None });
        for d in &self.dispatches[range] {
            pass.set_pipeline(&d.pipeline.pipeline);
            pass.set_bind_group(0, &d.group, &[]);
            let [x, y, z] = d.grid.0;
            pass.dispatch_workgroups(x, y, z);
        }
    }
}
