//! Report: all measurements of one call.

use esvit_engine::Result;
use esvit_engine::spec::TrainerSpec;
use serde::Serialize;

use crate::{BenchCase, Machine, Measurement, OperatorRow, Pace, StepRow, inference, measure, operators, peak_gflops, step};

/// Subject of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Every operator of a step.
    Operators,
    /// A case.
    Case(BenchCase),
}

impl Subject {
    /// The subjects a word stands for: `ops`, `attention` for its four cases, `all`, or a case's name; nothing for other words.
    pub fn named(word: &str) -> Vec<Subject> {
        let all = BenchCase::ALL.into_iter().map(Subject::Case);
        match word {
            "ops" => vec![Subject::Operators],
            "all" => all.chain([Subject::Operators]).collect(),
            "attention" => all.filter(|subject| matches!(subject, Subject::Case(BenchCase::Attention { .. }))).collect(),
            name => all.filter(|subject| matches!(subject, Subject::Case(case) if case.name() == name)).collect(),
        }
    }
}

/// Rate of a large matrix product.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Peak {
    /// Compute threads; on a GPU they do nothing.
    pub threads: usize,
    /// 10⁹ operations a second.
    pub gflops: f64,
}

/// Measurements, and the machine they were made on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `esvit`: `bench/peer/` prints the same object under another name.
    pub tool: &'static str,
    /// Version of this library.
    pub version: &'static str,
    /// `cpu`, or the GPU's name.
    pub device: String,
    /// Instruction set of the CPU's kernels.
    pub instructions: &'static str,
    /// Rates that shares of the peak refer to, for each number of threads.
    pub peaks: Vec<Peak>,
    /// Measured cases.
    pub cases: Vec<Measurement>,
    /// Rows of the last step, by part and operator.
    pub rows: Vec<StepRow>,
    /// Rows of the last encoding, by operator.
    pub encoding: Vec<StepRow>,
    /// Measured operators.
    pub operators: Vec<OperatorRow>,
}

impl Default for Report {
    fn default() -> Report {
        Report {
            tool: "esvit",
            version: env!("CARGO_PKG_VERSION"),
            device: String::new(),
            instructions: esvit_simd::cpu::isa().name(),
            peaks: Vec::new(),
            cases: Vec::new(),
            rows: Vec::new(),
            encoding: Vec::new(),
            operators: Vec::new(),
        }
    }
}

impl Report {
    /// Measures the machine's own rate.
    ///
    /// # Errors
    /// When the GPU is lost, or has no room for the matrices.
    pub fn add_peak(&mut self, machine: &Machine, spec: &TrainerSpec) -> Result<()> {
        self.peaks.push(Peak { threads: machine.pool().threads(), gflops: peak_gflops(machine, spec.precision)? });
        Ok(())
    }

    /// Measures one subject: operators `runs` times (of them `only` those whose name begins so), cases at a pace. With `profile` a step or an
    /// encoding is made once more and split.
    ///
    /// # Errors
    /// When it cannot be built, or the GPU has not enough memory or is lost.
    pub fn add(
        &mut self,
        subject: Subject,
        spec: &TrainerSpec,
        machine: &Machine,
        only: Option<&str>,
        runs: usize,
        pace: &mut Pace,
        profile: bool,
    ) -> Result<()> {
        self.device = machine.device_name();
        match subject {
            Subject::Operators => self.operators = operators(spec, machine, runs, only)?,
            Subject::Case(BenchCase::Step) => {
                let (measurement, rows) = step(spec, machine, pace, profile)?;
                self.cases.push(measurement);
                self.rows = rows;
            }
            Subject::Case(BenchCase::Inference) => {
                let (measurement, rows) = inference::measure(spec, machine, pace, profile)?;
                self.cases.push(measurement);
                self.encoding = rows;
            }
            Subject::Case(case) => self.cases.push(measure(case, spec, machine, pace)?),
        }
        Ok(())
    }

    /// Rate of the machine with so many threads, where it was measured.
    pub fn peak(&self, threads: usize) -> Option<f64> {
        self.peaks.iter().find(|peak| peak.threads == threads).map(|peak| peak.gflops)
    }
}

/// Warm-up and counted runs: as asked for, but one run on a GPU in software, which takes minutes for what others do in seconds.
pub fn affordable(machine: &Machine, warm_up: usize, runs: usize) -> (usize, usize) {
    if machine.is_software_gpu() { (0, 1) } else { (warm_up, runs) }
}
