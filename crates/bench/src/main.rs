//! `esvit-bench`: what the engine costs on this machine, without Node, a network or a display.

// A program's words go to its standard streams; the library beside it prints nothing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod options;
mod table;

use std::io::{BufRead, Write};
use std::process::ExitCode;

use esvit_bench::{Machine, Pace, Report, Result, affordable};
use esvit_engine::device::Gpu;

use options::{Options, Parsed};

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
        Ok(report) => match serde_json::to_string(&report) {
            Ok(json) if options.json => println!("{json}"),
            _ => print!("{}", table::text(&report)),
        },
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
        // Half a second of matrix products would heat the machine between the runs of somebody who sets the pace.
        if !options.paced {
            report.add_peak(&machine, &options.spec)?;
        }
        let (warm_up, runs) = affordable(&machine, options.warm_up, options.runs);
        for &subject in &options.subjects {
            for batch in options.batches(subject) {
                let mut spec = options.spec.clone();
                spec.crops.batch = batch;
                let mut next = |times: &[f64]| if options.paced { on_demand(times) } else { times.len() < runs };
                let mut pace = Pace { warm_up, next: &mut next };
                report.add(subject, &spec, &machine, options.only.as_deref(), runs, &mut pace, !options.paced)?;
            }
        }
    }
    Ok(report)
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
