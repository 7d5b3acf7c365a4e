//! Measurements, on Node's thread pool.

use esvit_bench::{Machine, Pace, Report, Subject, affordable};
use esvit_engine::spec::TrainerSpec;
use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Result, Task};
use napi_derive::napi;
use serde::Deserialize;

use crate::failure::{CONFIG, ENGINE, failure, from_engine};
use crate::functions::{Device, open_gpu};

/// What is measured, and how often.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    subject: String,
    spec: TrainerSpec,
    warm_up: usize,
    runs: usize,
    only: Option<String>,
}

/// One call of [`bench`].
pub struct Bench {
    request: serde_json::Value,
    device: Device,
}

impl Task for Bench {
    type Output = String;
    type JsValue = String;

    fn compute(&mut self) -> Result<String> {
        let request = serde_json::from_value(std::mem::take(&mut self.request));
        let request: Request = request.map_err(|e| failure(CONFIG, format_args!("the measurement's specification: {e}")))?;
        let subjects = Subject::named(&request.subject);
        if subjects.is_empty() {
            return Err(failure(CONFIG, format_args!("{} cannot be measured", request.subject)));
        }
        let report = report(&request, &subjects, &self.device).map_err(from_engine)?;
        serde_json::to_string(&report).map_err(|e| failure(ENGINE, e))
    }

    fn resolve(&mut self, _: Env, report: String) -> Result<String> {
        Ok(report)
    }
}

fn report(request: &Request, subjects: &[Subject], device: &Device) -> esvit_engine::Result<Report> {
    let machine = match device {
        Device::cpu => Machine::cpu(request.spec.threads)?,
        Device::gpu => Machine::with_gpu(open_gpu()?)?,
    };
    let (warm_up, runs) = affordable(&machine, request.warm_up, request.runs);
    let mut report = Report::default();
    report.add_peak(&machine, &request.spec)?;
    for &subject in subjects {
        let mut next = |times: &[f64]| times.len() < runs;
        let mut pace = Pace { warm_up, next: &mut next };
        report.add(subject, &request.spec, &machine, request.only.as_deref(), runs, &mut pace, true)?;
    }
    Ok(report)
}

/// Measures a subject (`ops`, `attention`, `all`, or a case's name) at the sizes of a trainer's specification; the report is JSON.
#[napi(ts_return_type = "Promise<string>")]
pub fn bench(request: serde_json::Value, device: Device) -> AsyncTask<Bench> {
    AsyncTask::new(Bench { request, device })
}
