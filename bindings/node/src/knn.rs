//! k-NN classification, on Node's thread pool.

use std::mem::take;

use esvit_engine::knn::{Accuracy, LabeledRows, classify};
use esvit_simd::Pool;
use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Result, Task};
use napi_derive::napi;

use crate::arrays::Copied;
use crate::failure::{ENGINE, failure, from_engine};
use crate::json::Json;

/// Features and labels of one side, as they came.
type Rows = (Vec<f32>, Vec<u32>);

/// One call of [`knn`].
pub struct Knn {
    bank: Rows,
    queries: Rows,
    width: u32,
    classes: u32,
    ks: Vec<u32>,
    temperature: f64,
}

impl Task for Knn {
    type Output = Vec<Accuracy>;
    type JsValue = Json;

    fn compute(&mut self) -> Result<Vec<Accuracy>> {
        let pool = Pool::new(0).map_err(|e| failure(ENGINE, e))?;
        let rows = |(features, labels): Rows| LabeledRows::new(features, labels, self.width as usize, self.classes as usize);
        let bank = rows(take(&mut self.bank)).map_err(from_engine)?;
        let queries = rows(take(&mut self.queries)).map_err(from_engine)?;
        let ks: Vec<usize> = self.ks.iter().map(|&k| k as usize).collect();
        classify(&pool, &bank, &queries, &ks, self.temperature as f32).map_err(from_engine)
    }

    fn resolve(&mut self, _: Env, results: Vec<Accuracy>) -> Result<Json> {
        Json::of(results)
    }
}

/// Classifies query rows by weighted k-NN (votes exp(cosine / temperature)) among the rows of the bank; rows of `width` values are
/// l2-normalized first.
///
/// Rejects with `ENGINE` where sizes do not fit each other.
#[napi(
    ts_args_type = "bank: Float32Array, bankLabels: Uint32Array, queries: Float32Array, queryLabels: Uint32Array, width: number, classes: number, ks: number[], temperature: number",
    ts_return_type = "Promise<Accuracy[]>"
)]
#[allow(clippy::too_many_arguments)]
pub fn knn(
    bank: Copied<f32>,
    bank_labels: Copied<u32>,
    queries: Copied<f32>,
    query_labels: Copied<u32>,
    width: u32,
    classes: u32,
    ks: Vec<u32>,
    temperature: f64,
) -> AsyncTask<Knn> {
    AsyncTask::new(Knn { bank: (bank.0, bank_labels.0), queries: (queries.0, query_labels.0), width, classes, ks, temperature })
}
