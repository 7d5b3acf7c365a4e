//! Best rate of this machine's matrix product: the figure that shares of the peak refer to.

use std::time::{Duration, Instant};

use esvit_simd::gemm::gemm;
use esvit_simd::{Mat, MatMut, Pool};

/// Best single-precision rate of a 1024³ product over about half a second, in GFLOP/s.
pub fn gemm_gflops(pool: &Pool) -> f64 {
    const N: usize = 1024;
    let a: Vec<f32> = (0..N * N).map(|i| (i % 97) as f32 * 0.01).collect();
    let b: Vec<f32> = (0..N * N).map(|i| (i % 89) as f32 * 0.01).collect();
    let mut c = vec![0.0; N * N];
    let begun = Instant::now();
    let mut best = f64::INFINITY;
    while begun.elapsed() < Duration::from_millis(500) {
        let started = Instant::now();
        pool.install(|| gemm(Mat::new(&a, N, N), Mat::new(&b, N, N), MatMut::new(&mut c, N, N), false, Some(pool)));
        best = best.min(started.elapsed().as_secs_f64());
    }
    2.0 * (N * N * N) as f64 / best / 1e9
}
