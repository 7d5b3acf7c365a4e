//! One measurement, as it is printed. `bench/peer/measurement.py` has the same fields.

use esvit_engine::spec::{Precision, TrainerSpec};
use serde::Serialize;

use crate::{Case, Machine, memory};

/// Measurement of one case. Times in milliseconds, arithmetic in 10⁹ operations, memory in bytes.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub struct Measurement {
    /// Name of the case.
    pub case: &'static str,
    /// Whose code it is: `esvit`, and `pytorch`, `onnxruntime` … in what the peer prints.
    pub tool: &'static str,
    /// `cpu`, or the GPU's name.
    pub device: String,
    /// Rounding of matrix products.
    pub precision: Precision,
    /// Compute threads; on a GPU they do nothing.
    pub threads: usize,
    /// Images of a run: those of all passes of a step.
    pub batch: usize,
    /// Time of every run that counts.
    pub run_ms: Vec<f64>,
    /// Median of the runs.
    pub median_ms: f64,
    /// Fastest run.
    pub min_ms: f64,
    /// Slowest run.
    pub max_ms: f64,
    /// Images in a second at the median.
    pub images_per_second: f64,
    /// Matrix products by their formula, as if every matrix were stored: what a faster formulation saves counts for it.
    pub gflop: f64,
    /// Rate at the median, 10⁹ operations a second.
    pub gflops: f64,
    /// Memory known before the first run.
    pub planned_bytes: u64,
    /// Planned bytes in the GPU's memory; `null` on the CPU.
    pub device_bytes: Option<u64>,
    /// Resident before anything of the case was built; `null` where the system does not tell.
    pub base_bytes: Option<u64>,
    /// Largest resident memory until its end.
    pub peak_bytes: Option<u64>,
}

/// Collects what a [`Measurement`] needs before its case is built.
pub(crate) struct Begun {
    base_bytes: Option<u64>,
}

impl Begun {
    pub fn new() -> Begun {
        memory::forget_peak();
        Begun { base_bytes: memory::resident() }
    }

    pub fn end(self, case: Case, spec: &TrainerSpec, machine: &Machine, run_ms: Vec<f64>, gflop: f64, planned_bytes: u64) -> Measurement {
        let [min_ms, median_ms, max_ms] = spread(&run_ms);
        let images = spec.crops.batch * spec.accumulate;
        Measurement {
            case: case.name(),
            tool: "esvit",
            device: machine.device(),
            precision: spec.precision,
            threads: machine.pool().threads(),
            batch: images,
            median_ms,
            min_ms,
            max_ms,
            images_per_second: images as f64 / median_ms * 1e3,
            gflop,
            gflops: gflop / median_ms * 1e3,
            planned_bytes,
            device_bytes: machine.gpu().map(|_| planned_bytes),
            base_bytes: self.base_bytes,
            peak_bytes: memory::peak(),
            run_ms,
        }
    }
}

/// Smallest, median (the mean of the two in the middle), largest.
pub(crate) fn spread(times: &[f64]) -> [f64; 3] {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    [sorted[0], (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0, sorted[n - 1]]
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(spread(&[5.0, 1.0, 3.0]), [1.0, 3.0, 5.0]);
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), [1.0, 3.0, 9.0]);
        assert_eq!(spread(&[7.0]), [7.0, 7.0, 7.0]);
    }
}
