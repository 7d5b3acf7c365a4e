//! Results against golden values. A mismatch is a sentence: fixture, tensor, index, got, want, tolerance.
//!
//! Every check has the form "unless within, an error", so that a NaN is an error.

use std::ops::Range;

use crate::golden::{GoldenTensor, GroupRow, Values};
use crate::tolerance::{FORWARD, GRADIENT, NO_DIGIT, VANISHING, at_least_noise, element, key_bias, unless_noisier};

/// Failures of a group that its message lists; the rest is counted.
const LISTED: usize = 8;

/// A forward output: every stored element, and the whole (relative L2 where all elements are stored, `l2` and
/// `sum` where the golden value is a digest).
///
/// # Errors
/// A sentence that names the worst element or the norm that differs.
pub fn compare_forward(golden: &GoldenTensor, got: &[f32]) -> Result<(), String> {
    check_length(golden, got)?;
    let label = &golden.label;
    let tolerance = element(golden.absmax, golden.noise.max_abs);
    if let Some((index, want)) = worst(golden, got) {
        let difference = f64::from(got[index]) - f64::from(want);
        let is_within = difference.abs() <= tolerance;
        if !is_within {
            return Err(format!(
                "{label}[{index}] of {:?}: got {}, want {want}, difference {difference:.3e}, tolerance {tolerance:.1e}",
                golden.shape, got[index]
            ));
        }
    }
    match &golden.values {
        Values::Full(_) if golden.l2 > 0.0 => within_relative_l2(golden, got, at_least_noise(FORWARD, golden.noise.rel_l2), 0..0),
        Values::Full(_) => Ok(()),
        Values::Samples(_) => {
            let tolerance = unless_noisier(FORWARD, golden.noise.rel_l2);
            within_l2(golden, got, tolerance)?;
            let sum: f64 = got.iter().map(|&v| f64::from(v)).sum();
            let limit = tolerance * golden.l2 * (golden.len() as f64).sqrt();
            if (sum - golden.sum).abs() <= limit {
                Ok(())
            } else {
                Err(format!("{label}: got sum {sum}, want {}, tolerance {limit:.1e}", golden.sum))
            }
        }
    }
}

/// One gradient of a group whose median l2 ([`median_l2`]) is `median`.
///
/// A gradient that is zero in exact arithmetic holds rounding noise; it only has to be small.
///
/// # Errors
/// A sentence that names the worst element or the norm that differs.
pub fn compare_gradient(golden: &GoldenTensor, got: &[f32], median: f64) -> Result<(), String> {
    check_length(golden, got)?;
    let noise = golden.noise.rel_l2;
    let limit = VANISHING * median;
    if golden.l2 < limit || golden.l2 == 0.0 || noise.is_some_and(|noise| noise >= NO_DIGIT) {
        let l2 = l2(got);
        return if l2 <= limit {
            Ok(())
        } else {
            Err(format!("{}: got l2 {l2:.3e}, want rounding noise below {limit:.3e} (the golden l2 is {:.3e})", golden.label, golden.l2))
        };
    }
    let tolerance = at_least_noise(GRADIENT, noise);
    within_relative_l2(golden, got, tolerance, 0..0)?;
    within_l2(golden, got, tolerance)
}

/// All gradients of a group. `get` gives the gradient of the named parameter, `None` if it has none; a row
/// without a golden value (a frozen parameter) wants `None`.
///
/// # Errors
/// One line for each of the first few gradients that differ, and their number.
pub fn compare_gradient_group<A: AsRef<[f32]>>(rows: &[GroupRow], get: impl FnMut(&str) -> Option<A>) -> Result<(), String> {
    let median = median_l2(rows);
    compare_rows(rows, get, |_, golden, got| compare_gradient(golden, got, median))
}

/// Trained parameters or optimizer moments. The key part of the attention biases is left out: its gradient is
/// rounding noise, so it walks in an arbitrary direction and changes no output.
///
/// # Errors
/// One line for each of the first few parameters that differ, and their number.
pub fn compare_parameters<A: AsRef<[f32]>>(rows: &[GroupRow], get: impl FnMut(&str) -> Option<A>) -> Result<(), String> {
    compare_rows(rows, get, |name, golden, got| {
        check_length(golden, got)?;
        if golden.l2 == 0.0 {
            let l2 = l2(got);
            return if l2 == 0.0 { Ok(()) } else { Err(format!("{}: got l2 {l2:.3e}, want zeros", golden.label)) };
        }
        let skipped = key_bias(name, golden.len());
        if skipped.is_empty() {
            let tolerance = at_least_noise(GRADIENT, golden.noise.rel_l2);
            within_relative_l2(golden, got, tolerance, skipped)?;
            within_l2(golden, got, tolerance)
        } else {
            // The noise of the whole is that of the part left out, so it says nothing about the rest.
            within_relative_l2(golden, got, GRADIENT, skipped)
        }
    })
}

/// Median l2 of the rows that have a value; 0 if none has. The lower one of two middle values.
pub fn median_l2(rows: &[GroupRow]) -> f64 {
    let mut norms: Vec<f64> = rows.iter().filter_map(|row| Some(row.golden.as_ref()?.l2)).collect();
    norms.sort_by(f64::total_cmp);
    norms.get(norms.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

fn compare_rows<A: AsRef<[f32]>>(
    rows: &[GroupRow],
    mut get: impl FnMut(&str) -> Option<A>,
    compare: impl Fn(&str, &GoldenTensor, &[f32]) -> Result<(), String>,
) -> Result<(), String> {
    let mut failures = Vec::new();
    for row in rows {
        let result = match (&row.golden, get(&row.name)) {
            (Some(golden), Some(got)) => compare(&row.name, golden, got.as_ref()),
            (Some(golden), None) => Err(format!("{}: got nothing, want {:?}", golden.label, golden.shape)),
            (None, Some(_)) => Err(format!("{}: got a value, want none", row.name)),
            (None, None) => Ok(()),
        };
        failures.extend(result.err());
    }
    if failures.is_empty() {
        return Ok(());
    }
    let listed = failures[..failures.len().min(LISTED)].join("\n  ");
    Err(format!("{} of {} differ:\n  {listed}", failures.len(), rows.len()))
}

fn check_length(golden: &GoldenTensor, got: &[f32]) -> Result<(), String> {
    if got.len() == golden.len() {
        return Ok(());
    }
    Err(format!("{}: got {} elements, want {:?}", golden.label, got.len(), golden.shape))
}

/// The stored element with the largest difference, NaN being the largest; nothing if none is stored.
fn worst(golden: &GoldenTensor, got: &[f32]) -> Option<(usize, f32)> {
    // `total_cmp` orders NaN last only if its sign is clear, as `abs` makes it.
    golden.points().max_by(|a, b| {
        let difference = |&(index, want): &(usize, f32)| (got[index] - want).abs();
        difference(a).total_cmp(&difference(b))
    })
}

/// Relative L2 over the stored elements outside `skipped`.
///
/// The samples of a digest can all be small by chance, so they are measured against `absmax`·√samples where they
/// are below a hundredth of that.
fn within_relative_l2(golden: &GoldenTensor, got: &[f32], tolerance: f64, skipped: Range<usize>) -> Result<(), String> {
    let (mut count, mut difference2, mut want2) = (0usize, 0.0, 0.0);
    for (index, want) in golden.points().filter(|(index, _)| !skipped.contains(index)) {
        let want = f64::from(want);
        count += 1;
        difference2 += (f64::from(got[index]) - want).powi(2);
        want2 += want * want;
    }
    let ceiling = golden.absmax * (count as f64).sqrt();
    let is_digest = matches!(golden.values, Values::Samples(_));
    let scale = if is_digest && want2.sqrt() < 0.01 * ceiling { ceiling } else { want2.sqrt() };
    let difference = difference2.sqrt();
    if difference <= tolerance * scale {
        return Ok(());
    }
    let at = worst(golden, got).map_or(String::new(), |(index, want)| {
        format!("; largest difference at [{index}] of {:?}: got {}, want {want}", golden.shape, got[index])
    });
    Err(format!("{}: relative L2 {:.2e}, tolerance {tolerance:.1e}{at}", golden.label, difference / scale))
}

fn within_l2(golden: &GoldenTensor, got: &[f32], tolerance: f64) -> Result<(), String> {
    let l2 = l2(got);
    if (l2 - golden.l2).abs() <= tolerance * golden.l2 {
        return Ok(());
    }
    Err(format!("{}: got l2 {l2}, want {}, relative tolerance {tolerance:.1e}", golden.label, golden.l2))
}

fn l2(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fill::{FillKind, fill_named};
    use crate::golden::{Noise, SAMPLES, sample_index};

    fn golden(values: &[f32], digest: bool) -> GoldenTensor {
        let stored = if digest {
            Values::Samples((0..SAMPLES).map(|j| values[sample_index(j, values.len())]).collect())
        } else {
            Values::Full(values.to_vec())
        };
        GoldenTensor {
            label: "test: x".into(),
            shape: vec![values.len()],
            values: stored,
            sum: values.iter().map(|&v| f64::from(v)).sum(),
            l2: l2(values),
            absmax: values.iter().map(|&v| f64::from(v.abs())).fold(0.0, f64::max),
            noise: Noise { max_abs: Some(1e-6), rel_l2: Some(1e-7) },
        }
    }

    fn row(name: &str, golden: GoldenTensor) -> GroupRow {
        GroupRow { name: name.into(), golden: Some(golden) }
    }

    fn wave(n: usize) -> Vec<f32> {
        fill_named("wave", &[n], FillKind::Input)
    }

    #[test]
    fn a_forward_output_passes_with_rounding_and_fails_beyond() {
        for digest in [false, true] {
            let want = wave(5000);
            let golden = golden(&want, digest);
            let rounded: Vec<f32> = want.iter().map(|v| v * (1.0 + 1e-6)).collect();
            assert_eq!(compare_forward(&golden, &rounded), Ok(()));

            let mut wrong = want.clone();
            let index = sample_index(20, want.len());
            wrong[index] += 1e-3;
            let message = compare_forward(&golden, &wrong).expect_err("one element differs");
            assert!(message.contains(&format!("test: x[{index}]")), "{message}");
            wrong[index] = f32::NAN;
            compare_forward(&golden, &wrong).expect_err("a NaN differs");
            compare_forward(&golden, &want[1..]).expect_err("a length differs");
        }
    }

    #[test]
    fn a_digest_catches_what_no_sample_sees() {
        let want = wave(5000);
        let golden = golden(&want, true);
        let mut wrong = want.clone();
        wrong[1] += 5.0;
        let message = compare_forward(&golden, &wrong).expect_err("l2 differs");
        assert!(message.contains("l2"), "{message}");
        // Two negated elements keep l2, and the sum tells.
        let mut wrong = want.clone();
        for value in wrong[1..4].iter_mut() {
            *value = -*value;
        }
        let message = compare_forward(&golden, &wrong).expect_err("the sum differs");
        assert!(message.contains("sum"), "{message}");
    }

    #[test]
    fn many_small_differences_fail_by_their_l2() {
        let want = wave(100);
        // Below 2e-5 per element, above 1e-5 of the whole.
        let wrong: Vec<f32> = want.iter().map(|v| v + 1.8e-5).collect();
        let message = compare_forward(&golden(&want, false), &wrong).expect_err("relative L2 differs");
        assert!(message.contains("relative L2"), "{message}");
    }

    #[test]
    fn a_result_may_be_as_noisy_as_its_golden_value() {
        let want = wave(5000);
        let mut golden = golden(&want, true);
        let near: Vec<f32> = want.iter().map(|v| v * (1.0 + 1e-3)).collect();
        compare_forward(&golden, &near).expect_err("too far for an exact golden value");
        golden.noise = Noise { max_abs: Some(1e-3), rel_l2: Some(1e-4) };
        assert_eq!(compare_forward(&golden, &near), Ok(()));
    }

    #[test]
    fn gradients_are_compared_by_relative_l2() {
        let want = wave(5000);
        let golden = golden(&want, true);
        let scaled = |by: f32| -> Vec<f32> { want.iter().map(|v| v * by).collect() };
        assert_eq!(compare_gradient(&golden, &scaled(1.00005), golden.l2), Ok(()));
        compare_gradient(&golden, &scaled(1.0005), golden.l2).expect_err("scaled");
        compare_gradient(&golden, &scaled(-1.0), golden.l2).expect_err("negated");
        compare_gradient(&golden, &scaled(f32::NAN), golden.l2).expect_err("NaN");
    }

    #[test]
    fn a_gradient_that_is_noise_only_has_to_be_small() {
        let tiny: Vec<f32> = wave(64).iter().map(|v| v * 1e-7).collect();
        let mut noisy = golden(&tiny, false);
        noisy.noise.rel_l2 = Some(1e8);
        let other: Vec<f32> = tiny.iter().map(|v| -v).collect();
        assert_eq!(compare_gradient(&noisy, &other, 1.0), Ok(()));
        assert_eq!(compare_gradient(&noisy, &vec![0.0; 64], 1.0), Ok(()));
        compare_gradient(&noisy, &wave(64), 1.0).expect_err("not small");
        compare_gradient(&noisy, &vec![f32::NAN; 64], 1.0).expect_err("NaN");
    }

    #[test]
    fn a_group_names_every_wrong_member() {
        let (a, b) = (wave(100), wave(200));
        let frozen = GroupRow { name: "frozen".into(), golden: None };
        let rows = [row("a", golden(&a, true)), row("b", golden(&b, true)), frozen];
        let good = |name: &str| match name {
            "a" => Some(a.clone()),
            "b" => Some(b.clone()),
            _ => None,
        };
        assert_eq!(compare_gradient_group(&rows, good), Ok(()));
        compare_gradient_group(&rows, |name| good(name).or(Some(vec![0.0]))).expect_err("a frozen one has a gradient");
        compare_gradient_group(&rows, |name| good(name).filter(|_| name != "b")).expect_err("one is missing");
        let bad = |name: &str| good(name).map(|values| values.iter().map(|v| v * 1.01).collect::<Vec<_>>());
        let message = compare_gradient_group(&rows, bad).expect_err("all differ");
        assert!(message.starts_with("2 of 3 differ"), "{message}");
    }

    #[test]
    fn trained_parameters_leave_out_the_key_bias() {
        let want = wave(60);
        let mut drifted = want.clone();
        drifted[20..40].iter_mut().for_each(|v| *v += 0.1);
        let mut with_noise = golden(&want, true);
        with_noise.noise.rel_l2 = Some(1e-2);
        let as_qkv = [row("attn.qkv.bias", with_noise)];
        let as_proj = [row("attn.proj.bias", golden(&want, true))];
        assert_eq!(compare_parameters(&as_qkv, |_| Some(&drifted)), Ok(()));
        compare_parameters(&as_proj, |_| Some(&drifted)).expect_err("this bias has no key part");
        drifted[45] += 1e-3;
        compare_parameters(&as_qkv, |_| Some(&drifted)).expect_err("the value part differs");
    }
}
