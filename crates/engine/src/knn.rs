//! Weighted k-nearest-neighbor classification of features.
//!
//! Rows are scaled to unit length; the k most similar rows of the bank vote with `exp(cosine / temperature)`; classes are
//! ranked by their votes.
//!
//! Source: Wu et al. 2018, <https://arxiv.org/abs/1805.01978>; `eval_knn.py` of microsoft/esvit.

use esvit_simd::gemm::gemm;
use esvit_simd::{Mat, MatMut, Pool, lanes};
use rayon::prelude::*;

use crate::{Error, Result};

/// Accuracy for one k, in per cent.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Accuracy {
    /// Neighbors that vote.
    pub k: usize,
    /// Queries whose class is ranked first.
    pub top1: f64,
    /// Queries whose class is among the first five.
    pub top5: f64,
}

/// Features `[rows, width]`, scaled to unit length, with a class for each row.
#[derive(Debug)]
pub struct LabeledRows {
    features: Vec<f32>,
    labels: Vec<u32>,
    width: usize,
    classes: usize,
}

impl LabeledRows {
    /// Takes row-major features and scales each row in place.
    ///
    /// # Errors
    /// When there is no row, column or class, sizes do not fit, or a label is no class.
    pub fn new(mut features: Vec<f32>, labels: Vec<u32>, width: usize, classes: usize) -> Result<LabeledRows> {
        if width == 0 || classes == 0 || labels.is_empty() {
            return Err(Error::Spec(format!("neighbors need rows, columns and classes, got {} x {width} of {classes}", labels.len())));
        }
        if Some(features.len()) != labels.len().checked_mul(width) {
            return Err(Error::Input { what: "the features", want: labels.len().saturating_mul(width), got: features.len() });
        }
        if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
            return Err(Error::Spec(format!("label {label} is outside the {classes} classes")));
        }
        for row in features.chunks_mut(width) {
            let norm = lanes::sum_squares(row).sqrt().max(1e-12) as f32;
            row.iter_mut().for_each(|v| *v /= norm);
        }
        Ok(LabeledRows { features, labels, width, classes })
    }
}

/// Query rows whose similarities are alive at once.
const CHUNK: usize = 64;

/// Votes `[queries, classes]` of the `k` nearest rows of the bank.
///
/// # Errors
/// When the queries have another width or number of classes than the bank.
pub fn votes(pool: &Pool, bank: &LabeledRows, queries: &LabeledRows, k: usize, temperature: f32) -> Result<Vec<f32>> {
    let (width, classes, rows) = (bank.width, bank.classes, bank.labels.len());
    for (what, want, got) in [("a row of the queries", width, queries.width), ("the queries' classes", classes, queries.classes)] {
        if want != got {
            return Err(Error::Input { what, want, got });
        }
    }
    let mut votes = vec![0.0f32; queries.labels.len() * classes];
    pool.install(|| {
        votes.par_chunks_mut(CHUNK * classes).zip(queries.features.par_chunks(CHUNK * width)).for_each(|(votes, queries)| {
            let count = queries.len() / width;
            let mut similarity = vec![0.0f32; count * rows];
            let bank_rows = Mat::new(&bank.features, rows, width).t();
            gemm(Mat::new(queries, count, width), bank_rows, MatMut::new(&mut similarity, count, rows), false, None);
            for (votes, row) in votes.chunks_mut(classes).zip(similarity.chunks(rows)) {
                for j in nearest(row, k) {
                    votes[bank.labels[j] as usize] += (row[j] / temperature).exp();
                }
            }
        });
    });
    Ok(votes)
}

/// Accuracy of classifying the queries by their neighbors in the bank, for each of several k.
///
/// # Errors
/// As [`votes`].
pub fn classify(pool: &Pool, bank: &LabeledRows, queries: &LabeledRows, ks: &[usize], temperature: f32) -> Result<Vec<Accuracy>> {
    let n = queries.labels.len() as f64;
    let one = |&k: &usize| -> Result<Accuracy> {
        let votes = votes(pool, bank, queries, k, temperature)?;
        let (mut first, mut fifth) = (0, 0);
        for (votes, &label) in votes.chunks(bank.classes).zip(&queries.labels) {
            // Rank of the true class; of equal votes the lower class comes first, as in a stable sort.
            let own = votes[label as usize];
            let better = votes.iter().enumerate().filter(|&(c, &v)| v > own || (v == own && c < label as usize)).count();
            first += usize::from(better == 0);
            fifth += usize::from(better < 5);
        }
        Ok(Accuracy { k, top1: 100.0 * f64::from(first as u32) / n, top5: 100.0 * f64::from(fifth as u32) / n })
    };
    ks.iter().map(one).collect()
}

/// Indices of the k largest, the earlier of equals.
fn nearest(row: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    let k = k.min(row.len());
    let larger = |a: &usize, b: &usize| row[*b].total_cmp(&row[*a]).then(a.cmp(b));
    if k < order.len() && k > 0 {
        order.select_nth_unstable_by(k - 1, larger);
    }
    order.truncate(k);
    order
}
