//! Costs of the engine on this machine: whole steps, inference, the loss, window attention, and every operator of a step.
//!
//! - [`Machine`] is where something runs: compute threads, or a GPU. A GPU is waited for inside every timed region.
//! - [`BenchCase`] names what is measured, [`measure`] does it and gives a [`Measurement`]; `bench/peer/` prints the same fields.
//! - [`Report`] collects what one call measured, and is what `--json` prints.
//! - [`operators`] times each operator alone, at the shapes a step's program has it; [`estimate`] tells from less how long a step will take.
//!
//! The binary `esvit-bench` needs neither Node, a network nor a display; `esvit bench` calls the same functions.

mod attention;
mod case;
mod estimate;
mod inference;
mod loss;
mod machine;
mod measure;
mod measurement;
mod memory;
pub mod models;
mod operators;
mod pace;
mod peak;
mod report;
mod step;
mod workload;

pub use case::BenchCase;
pub use estimate::estimate;
pub use esvit_engine::{Error, Result};
pub use machine::Machine;
pub use measure::measure;
pub use measurement::Measurement;
pub use operators::{OperatorRow, operators};
pub use pace::Pace;
pub use peak::peak_gflops;
pub use report::{BenchRequest, Peak, Report, Subject, affordable};
pub use step::step;
