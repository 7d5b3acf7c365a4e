//! k-NN classification, on Node's thread pool.

use esvit_engine::knn::{Accuracy, Labeled, classify};
use esvit_simd::Pool;
use napi::bindgen_prelude::{AsyncTask, Float32Array, Uint32Array};
use napi::{Env, Result, Task};
use napi_derive::napi;

use crate::failure::{ENGINE, failure, from_engine};
use crate::json::Json;

/// One call of [`knn`].
pub struct Knn {
    train: Float32Array,
    train_labels: Uint32Array,
    test: Float32Array,
    test_labels: Uint32Array,
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
        let train = Labeled { features: &self.train, labels: &self.train_labels };
        let test = Labeled { features: &self.test, labels: &self.test_labels };
        let ks: Vec<usize> = self.ks.iter().map(|&k| k as usize).collect();
        classify(&pool, train, test, self.width as usize, self.classes as usize, &ks, self.temperature as f32).map_err(from_engine)
    }

    fn resolve(&mut self, _: Env, results: Vec<Accuracy>) -> Result<Json> {
        Json::of(results)
    }
}

/// Classifies test rows by weighted k-NN (votes exp(cosine / temperature)) among train rows; rows of `width` values are l2-normalized first.
///
/// Rejects with `ENGINE` where sizes do not fit each other.
#[napi(ts_return_type = "Promise<Accuracy[]>")]
#[allow(clippy::too_many_arguments)]
pub fn knn(
    train: Float32Array,
    train_labels: Uint32Array,
    test: Float32Array,
    test_labels: Uint32Array,
    width: u32,
    classes: u32,
    ks: Vec<u32>,
    temperature: f64,
) -> AsyncTask<Knn> {
    AsyncTask::new(Knn { train, train_labels, test, test_labels, width, classes, ks, temperature })
}
