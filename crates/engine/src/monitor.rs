//! Signs of collapse, cheap enough to compute at every step.

/// Standard deviation of unit-length rows, averaged over the channels and scaled by √C: near 1 for features that
/// spread over the sphere, 0 when all images give the same feature.
pub(crate) fn feature_deviation(rows: &[f32], width: usize) -> f64 {
    let n = (rows.len() / width) as f64;
    let mut sum = vec![0.0f64; width];
    let mut sum_squares = vec![0.0f64; width];
    for row in rows.chunks(width) {
        let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(1e-12);
        for c in 0..width {
            let v = f64::from(row[c]) / norm;
            sum[c] += v;
            sum_squares[c] += v * v;
        }
    }
    let deviation = |c: usize| (sum_squares[c] / n - (sum[c] / n).powi(2)).max(0.0).sqrt();
    (0..width).map(deviation).sum::<f64>() / width as f64 * (width as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_have_none_and_orthogonal_rows_have_much() {
        assert!(feature_deviation(&[3.0, 4.0, 0.0, 6.0, 8.0, 0.0], 3) < 1e-7);
        assert!(feature_deviation(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], 3) > 0.7);
    }
}
