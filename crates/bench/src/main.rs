//! `esvit-bench`: what the engine costs on this machine, without Node, a network or a display.

// A program's words go to its standard streams; the library beside it prints nothing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod options;
mod report;

use std::io::{BufRead, Write};
use std::process::ExitCode;

use esvit_bench::{Case, Machine, Pace, Result, measure, operators, peak_gflops, step};
use esvit_engine::device::Gpu;
use esvit_engine::spec::TrainerSpec;

use options::{Options, Parsed, Subject};
use report::Report;

fn main() -> ExitCode {
    // Mesa's layer that reorders GPUs complains where there is no desktop; the engine orders them itself.
    if std::env::var_os("NODEVICE_SELECT").is_none() {
        // SAFETY: the process has only this thread yet, so nobody reads the environment meanwhile.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Parsed::Run(options)) => options,
        Ok(Parsed::Help) => {
            print!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(sentence) => {
            eprintln!("esvit-bench: {sentence}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(report) if options.json => println!("{}", report.json()),
        Ok(report) => print!("{}", report.text()),
        Err(error) => {
            eprintln!("esvit-bench: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(options: &Options) -> Result<Report> {
    let gpu = if options.gpu { Some(Gpu::open()?) } else { None };
    let mut report = Report::default();
    for &threads in &options.threads {
        let machine = match &gpu {
            Some(gpu) => Machine::with_gpu(gpu.clone())?,
            None => Machine::cpu(threads)?,
        };
        report.device = machine.device();
        // Half a second of matrix products would heat the machine between the runs of somebody who sets the pace.
        if !options.paced {
            report.peaks.push((machine.pool().threads(), peak_gflops(&machine, options.spec.precision)?));
        }
        for subject in &options.subjects {
            for batch in options.batches(*subject) {
                let mut spec = options.spec.clone();
                spec.crops.batch = batch;
                one(options, *subject, &spec, &machine, &mut report)?;
            }
        }
    }
    Ok(report)
}

fn one(options: &Options, subject: Subject, spec: &TrainerSpec, machine: &Machine, report: &mut Report) -> Result<()> {
    // A GPU in software takes minutes for what others do in seconds: one run, and what is compiled and touched first counts.
    let (warm_up, runs) = if machine.is_software_gpu() { (0, 1) } else { (options.warm_up, options.runs) };
    let mut counted = |times: &[f64]| times.len() < runs;
    let mut paced = |times: &[f64]| on_demand(times);
    let next: &mut dyn FnMut(&[f64]) -> bool = if options.paced { &mut paced } else { &mut counted };
    let mut pace = Pace { warm_up, next };
    match subject {
        Subject::Operators => report.operators = operators(spec, machine, runs, options.only.as_deref())?,
        Subject::Case(Case::Step) if !options.paced => {
            let (measurement, rows) = step(spec, machine, &mut pace, true)?;
            report.cases.push(measurement);
            report.rows = rows;
        }
        Subject::Case(case) => report.cases.push(measure(case, spec, machine, &mut pace)?),
    }
    Ok(())
}

/// Says that it is ready, or how long the last run took, and waits for a line that asks for another one.
fn on_demand(times: &[f64]) -> bool {
    match times.last() {
        None => println!("{{\"ready\":true}}"),
        Some(ms) => println!("{{\"ms\":{ms}}}"),
    }
    let mut line = String::new();
    // Whoever asked is gone when the streams are closed.
    std::io::stdout().flush().is_ok() && std::io::stdin().lock().read_line(&mut line).is_ok_and(|bytes| bytes > 0)
}
