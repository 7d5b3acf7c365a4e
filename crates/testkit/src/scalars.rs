//! Losses and indices against golden values. A mismatch is a sentence, as in [`crate::compare_forward`].

use crate::tolerance::{LOSS_END, LOSS_STEP};

/// A scalar loss, with a relative tolerance ([`LOSS_STEP`] for a single one).
///
/// # Errors
/// A sentence with `what` and both values.
pub fn compare_loss(what: &str, got: f64, want: f64, tolerance: f64) -> Result<(), String> {
    let difference = (got - want).abs() / want.abs();
    if difference <= tolerance || got == want {
        Ok(())
    } else {
        Err(format!("{what}: got {got}, want {want}, relative difference {difference:.2e}, tolerance {tolerance:.1e}"))
    }
}

/// The losses of a trajectory: the tolerance grows by [`LOSS_STEP`] a step, up to [`LOSS_END`].
///
/// # Errors
/// A sentence with the first step that differs.
pub fn compare_trajectory(what: &str, got: &[f64], want: &[f64]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: got {} losses, want {}", got.len(), want.len()));
    }
    for (step, (&got, &want)) in got.iter().zip(want).enumerate() {
        let tolerance = (LOSS_STEP * (step + 1) as f64).min(LOSS_END);
        compare_loss(&format!("{what}: loss of step {step}"), got, want, tolerance)?;
    }
    Ok(())
}

/// Indices, which must be equal.
///
/// # Errors
/// A sentence with `what`, the first index that differs and how many do.
pub fn compare_integers(what: &str, got: &[i32], want: &[i32]) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: got {} integers, want {}", got.len(), want.len()));
    }
    let mut differing = (0..got.len()).filter(|&i| got[i] != want[i]);
    let Some(first) = differing.next() else {
        return Ok(());
    };
    Err(format!("{what}[{first}]: got {}, want {}; {} of {} differ", got[first], want[first], 1 + differing.count(), got.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_and_indices() {
        assert_eq!(compare_loss("x", 5.0, 5.0 * (1.0 + 1e-6), LOSS_STEP), Ok(()));
        compare_loss("x", 5.0, 5.0 * (1.0 + 4e-6), LOSS_STEP).expect_err("4e-6");
        compare_loss("x", f64::NAN, 5.0, LOSS_STEP).expect_err("NaN");
        let want = [5.0; 6];
        let drift: Vec<f64> = (0..6).map(|step| 5.0 * (1.0 + 1.5e-6 * f64::from(step))).collect();
        assert_eq!(compare_trajectory("x", &drift, &want), Ok(()));
        compare_trajectory("x", &[5.0 * (1.0 + 4e-6); 6], &want).expect_err("the first step is too far");
        compare_trajectory("x", &want[..5], &want).expect_err("a step is missing");
        assert_eq!(compare_integers("x", &[1, 2], &[1, 2]), Ok(()));
        let message = compare_integers("x", &[1, 3, 4], &[1, 2, 5]).expect_err("two differ");
        assert_eq!(message, "x[1]: got 3, want 2; 2 of 3 differ");
    }
}
