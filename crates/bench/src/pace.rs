//! Number of runs of a measurement, and when they are made.

use esvit_engine::Result;

/// Number of runs: some that do not count, then others for as long as `next` says so; it is given the times so far, in milliseconds.
pub struct Pace<'a> {
    /// Runs that do not count: the first touches all memory for the first time, and compiles kernels.
    pub warm_up: usize,
    /// Decides whether there is another run. At least one is made.
    pub next: &'a mut dyn FnMut(&[f64]) -> bool,
}

impl Pace<'_> {
    /// Calls `run`, which gives its time in milliseconds.
    pub(crate) fn drive(&mut self, mut run: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
        for _ in 0..self.warm_up {
            run()?;
        }
        let mut times = Vec::new();
        while (self.next)(&times) || times.is_empty() {
            times.push(run()?);
        }
        Ok(times)
    }
}
