//! Everything that one call measured.

use esvit_engine::spec::TrainerSpec;
use esvit_engine::{Error, ProfileRow, Result};
use serde::{Deserialize, Serialize};

use crate::{Case, Machine, Measurement, OperatorRow, Pace, inference, measure, operators, peak_gflops, step};

/// What one word asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Every operator of a step.
    Operators,
    /// A case.
    Case(Case),
}

impl Subject {
    /// The subjects a word stands for: `ops`, `attention` for its four cases, `all`, or a case's name; nothing for other words.
    pub fn named(word: &str) -> Vec<Subject> {
        let all = Case::ALL.into_iter().map(Subject::Case);
        match word {
            "ops" => vec![Subject::Operators],
            "all" => all.chain([Subject::Operators]).collect(),
            "attention" => all.filter(|subject| matches!(subject, Subject::Case(Case::Attention { .. }))).collect(),
            name => all.filter(|subject| matches!(subject, Subject::Case(case) if case.name() == name)).collect(),
        }
    }
}

/// A measurement that is asked for, at the sizes of a trainer's specification.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BenchRequest {
    /// `ops` (every operator of a step), `attention` (four cases), `all`, or one case: `step`, `inference`, `loss`, `window_attention` …
    pub subject: String,
    /// The training run whose sizes are measured.
    pub spec: TrainerSpec,
    /// Runs that do not count; none on a GPU in software.
    pub warm_up: usize,
    /// Runs that count; one on a GPU in software.
    pub runs: usize,
    /// Begin of the operators' names, with the subject `ops`; all operators without it.
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub only: Option<String>,
}

/// Rate of a large matrix product.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Peak {
    /// Compute threads; on a GPU they do nothing.
    pub threads: usize,
    /// 10⁹ operations a second.
    pub gflops: f64,
}

/// Measurements of one call, and the machine they were made on.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(rename = "BenchReport"))]
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
    /// Cases that were measured.
    pub cases: Vec<Measurement>,
    /// Last step, split by part and operator.
    pub rows: Vec<ProfileRow>,
    /// Last encoding, split by operator.
    pub encoding: Vec<ProfileRow>,
    /// Operators that were measured alone.
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
    /// The report of one request.
    ///
    /// # Errors
    /// When the subject is not known, it cannot be built, or the GPU has not enough memory or is lost.
    pub fn of(request: &BenchRequest, machine: &Machine) -> Result<Report> {
        let subjects = Subject::named(&request.subject);
        if subjects.is_empty() {
            return Err(Error::Spec(format!("{} cannot be measured", request.subject)));
        }
        let (warm_up, runs) = affordable(machine, request.warm_up, request.runs);
        let mut report = Report::default();
        report.add_peak(machine, &request.spec)?;
        for subject in subjects {
            let mut next = |times: &[f64]| times.len() < runs;
            let mut pace = Pace { warm_up, next: &mut next };
            report.add(subject, &request.spec, machine, request.only.as_deref(), runs, &mut pace, true)?;
        }
        Ok(report)
    }

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
        self.device = machine.device();
        match subject {
            Subject::Operators => self.operators = operators(spec, machine, runs, only)?,
            Subject::Case(Case::Step) => {
                let (measurement, rows) = step(spec, machine, pace, profile)?;
                self.cases.push(measurement);
                self.rows = rows;
            }
            Subject::Case(Case::Inference) => {
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
