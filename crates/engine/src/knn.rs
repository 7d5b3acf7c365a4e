//! Weighted k-nearest-neighbor classification of features.
//!
//! Rows are scaled to unit length; the k most similar training rows vote with `exp(cosine / temperature)`; classes are
//! ranked by their votes.
//!
//! Source: Wu et al. 2018, <https://arxiv.org/abs/1805.01978>; `eval_knn.py` of microsoft/esvit.

use esvit_simd::gemm::gemm;
use esvit_simd::{Mat, MatMut, Pool, lanes};
use rayon::prelude::*;

use crate::{Error, Result};

/// Accuracy for one k, in per cent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Neighbors that vote.
    pub k: usize,
    /// Test rows whose class is ranked first.
    pub top1: f64,
    /// Test rows whose class is among the first five.
    pub top5: f64,
}

/// Features `[rows, width]` with a class for each row.
#[derive(Clone, Copy, Debug)]
pub struct Labeled<'a> {
    /// Row-major values.
    pub features: &'a [f32],
    /// Class of each row.
    pub labels: &'a [u32],
}

/// Test rows whose similarities are alive at once.
const CHUNK: usize = 64;

/// Votes `[test rows, classes]` for one k.
///
/// # Errors
/// When sizes do not fit or a label is no class.
pub fn votes(pool: &Pool, train: Labeled, test: &[f32], width: usize, classes: usize, k: usize, temperature: f32) -> Result<Vec<f32>> {
    check(train, width, classes)?;
    if width == 0 || !test.len().is_multiple_of(width) {
        return Err(Error::Input { what: "the test features", want: test.len() / width.max(1) * width, got: test.len() });
    }
    let rows = train.labels.len();
    let bank = unit_rows(train.features, width);
    let test = unit_rows(test, width);
    let mut votes = vec![0.0f32; test.len() / width * classes];
    pool.install(|| {
        votes.par_chunks_mut(CHUNK * classes).zip(test.par_chunks(CHUNK * width)).for_each(|(votes, test)| {
            let count = test.len() / width;
            let mut similarity = vec![0.0f32; count * rows];
            gemm(Mat::new(test, count, width), Mat::new(&bank, rows, width).t(), MatMut::new(&mut similarity, count, rows), false, None);
            for (votes, row) in votes.chunks_mut(classes).zip(similarity.chunks(rows)) {
                for j in nearest(row, k) {
                    votes[train.labels[j] as usize] += (row[j] / temperature).exp();
                }
            }
        });
    });
    Ok(votes)
}

/// Classification accuracy for several k.
pub fn classify(
    pool: &Pool,
    train: Labeled,
    test: Labeled,
    width: usize,
    classes: usize,
    ks: &[usize],
    temperature: f32,
) -> Result<Vec<Accuracy>> {
    check(test, width, classes)?;
    let n = test.labels.len().max(1) as f64;
    let one = |&k: &usize| -> Result<Accuracy> {
        let votes = votes(pool, train, test.features, width, classes, k, temperature)?;
        let (mut first, mut fifth) = (0, 0);
        for (votes, &label) in votes.chunks(classes).zip(test.labels) {
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

fn check(rows: Labeled, width: usize, classes: usize) -> Result<()> {
    if rows.features.len() != rows.labels.len() * width {
        return Err(Error::Input { what: "the features", want: rows.labels.len() * width, got: rows.features.len() });
    }
    match rows.labels.iter().find(|&&l| l as usize >= classes) {
        Some(label) => Err(Error::Spec(format!("label {label} is outside the {classes} classes"))),
        None => Ok(()),
    }
}

fn unit_rows(x: &[f32], width: usize) -> Vec<f32> {
    let mut unit = x.to_vec();
    for row in unit.chunks_mut(width.max(1)) {
        let norm = lanes::sum_squares(row).sqrt().max(1e-12) as f32;
        row.iter_mut().for_each(|v| *v /= norm);
    }
    unit
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
