//! Results that an update reads: the program's own where a step is one pass, otherwise the sums over its passes.

use esvit_gpu::{Gpu, Grid, Recorder, View};
use esvit_graph::GpuArena;

use super::kernels::{ACCUMULATE, AccumulateParams};
use super::memory::{ALIGN, allocate_all};
use crate::Result;
use crate::network::CompiledStep;

/// Views of a program's results.
#[derive(Debug)]
pub struct GpuResults {
    /// Gradient of each entry.
    pub gradients: Vec<Option<View>>,
    /// View loss, entropy and, where there is one, the region loss; `[1]` each.
    pub scalars: Vec<View>,
    /// Mean logits of the teacher for each center, `[K]`.
    pub teacher_means: Vec<View>,
    /// Teacher's view features of all passes, `[passes·2·B, C]`.
    pub views: View,
    /// Pass by pass, mean and variance of every batch norm.
    pub statistics: Vec<Vec<[View; 2]>>,
}

impl GpuResults {
    /// Results of a program that ran once.
    pub fn of_program(step: &CompiledStep, arena: &GpuArena) -> GpuResults {
        let output = |value| step.program.gpu_output(arena, value);
        let region = step.region.map(|term| term.loss);
        GpuResults {
            gradients: step.gradients.iter().map(|gradient| gradient.map(output)).collect(),
            scalars: [step.view.loss, step.view.entropy].into_iter().chain(region).map(output).collect(),
            teacher_means: step.terms().map(|term| output(term.teacher_mean)).collect(),
            views: output(step.teacher_views),
            statistics: vec![step.statistics.iter().map(|s| [output(s.mean), output(s.var)]).collect()],
        }
    }
}

/// Memory in which several passes of a step add up their results.
#[derive(Debug)]
pub struct GpuSums {
    /// Sums after the last pass.
    pub results: GpuResults,
    /// The statistics as one piece for each mean and each variance, `[passes, stride]`.
    statistics: Vec<[View; 2]>,
    /// Number of the current pass, `[1]`.
    pub number: View,
    share: f32,
}

impl GpuSums {
    /// For results like these in every pass.
    pub fn new(gpu: &Gpu, of_pass: &GpuResults, passes: usize) -> Result<GpuSums> {
        let like = |what: &str, views: &[View]| allocate_all(gpu, what, &views.iter().map(View::bytes).collect::<Vec<_>>());
        let present: Vec<View> = of_pass.gradients.iter().flatten().cloned().collect();
        let mut sums = like("the sums of the gradients", &present)?.into_iter();
        let gradients = of_pass.gradients.iter().map(|gradient| gradient.as_ref().and_then(|_| sums.next())).collect();
        let mut statistics = Vec::new();
        for pair in &of_pass.statistics[0] {
            let place = |view: &View| gpu.allocate("the statistics of the passes", passes as u64 * stride(view));
            statistics.push([place(&pair[0])?, place(&pair[1])?]);
        }
        let part = |pass: usize, [mean, var]: &[View; 2], of: &[View; 2]| {
            let part = |all: &View, one: &View| all.part(pass as u64 * stride(one), one.bytes());
            [part(mean, &of[0]), part(var, &of[1])]
        };
        let of_each = |pass| statistics.iter().zip(&of_pass.statistics[0]).map(|(all, one)| part(pass, all, one)).collect();
        let results = GpuResults {
            gradients,
            scalars: like("the sums of the losses", &of_pass.scalars)?,
            teacher_means: like("the sums of the teacher's logits", &of_pass.teacher_means)?,
            views: gpu.allocate("the teacher's features", passes as u64 * of_pass.views.bytes())?,
            statistics: (0..passes).map(of_each).collect(),
        };
        Ok(GpuSums { results, statistics, number: gpu.allocate("the number of the pass", 4)?, share: 1.0 / passes as f32 })
    }

    /// Adds an entry's gradient.
    pub fn add_gradient(&self, rec: &mut Recorder, of_pass: &GpuResults, entry: usize) -> Result<()> {
        match (&of_pass.gradients[entry], &self.results.gradients[entry]) {
            (Some(gradient), Some(sum)) => self.add(rec, gradient, sum),
            _ => Ok(()),
        }
    }

    /// Adds everything but the gradients.
    pub fn add_rest(&self, rec: &mut Recorder, of_pass: &GpuResults) -> Result<()> {
        let sums = self.results.scalars.iter().chain(&self.results.teacher_means);
        for (x, sum) in of_pass.scalars.iter().chain(&of_pass.teacher_means).zip(sums) {
            self.add(rec, x, sum)?;
        }
        self.put(rec, &of_pass.views, &self.results.views, of_pass.views.bytes())?;
        for (pair, all) in of_pass.statistics[0].iter().zip(&self.statistics) {
            for (x, all) in pair.iter().zip(all) {
                self.put(rec, x, all, stride(x))?;
            }
        }
        Ok(())
    }

    /// `sum ← sum + x·share`.
    fn add(&self, rec: &mut Recorder, x: &View, sum: &View) -> Result<()> {
        for piece in rec.row_pieces((x.bytes() / 4) as usize, 4) {
            let [x, sum] = [x, sum].map(|view| view.rows(piece.start, piece.len(), 1));
            let params = AccumulateParams { len: piece.len() as u32, stride: 0, share: self.share, pad: 0 };
            rec.dispatch(&ACCUMULATE, &[&x, &sum, &self.number], &params, Grid::elements(piece.len(), 256))?;
        }
        Ok(())
    }

    /// Copies `x` to the pass's place in `all`, whose passes lie `stride` bytes apart.
    fn put(&self, rec: &mut Recorder, x: &View, all: &View, stride: u64) -> Result<()> {
        let len = (x.bytes() / 4) as usize;
        let params = AccumulateParams { len: len as u32, stride: (stride / 4) as u32, share: 0.0, pad: 0 };
        Ok(rec.dispatch(&ACCUMULATE, &[x, all, &self.number], &params, Grid::elements(len, 256))?)
    }
}

/// Bytes from one pass's statistics to the next one's, so that a binding can begin there.
fn stride(view: &View) -> u64 {
    view.bytes().next_multiple_of(ALIGN)
}
