// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

use super::*;
use crate::{Pool, cpu};

/// A matrix of waves, as it is and transposed in memory.
struct WaveMatrix {
    plain: Vec<f32>,
    transposed: Vec<f32>,
    rows: usize,
    cols: usize,
}

impl WaveMatrix {
    fn new(rows: usize, cols: usize, frequency: f32) -> WaveMatrix {
        let plain: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * frequency).sin()).collect();
        let transposed = (0..rows * cols).map(|i| plain[(i % rows) * cols + i / rows]).collect();
        WaveMatrix { plain, transposed, rows, cols }
    }

    fn mat(&self, transposed: bool) -> Mat<'_> {
        if transposed { Mat::new(&self.transposed, self.cols, self.rows).t() } else { Mat::new(&self.plain, self.rows, self.cols) }
    }
}

/// Rounds to bf16, to the nearest, ties to even.
fn rounded(x: f32) -> f64 {
    let bits = x.to_bits();
    f64::from(f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
}

/// Shapes with tails of blocks and of panels, several chunks, shared and per-job packing, parts of a long inner dimension.
const SHAPES: &[(usize, usize, usize)] = &[
    (1, 1, 1),
    (3, 5, 7),
    (17, 33, 9),
    (64, 96, 48),
    (130, 70, 257),
    (200, 129, 1100),
    (5, 1000, 600),
    (137, 800, 63),
    (40, 50, 5001),
    (300, 17, 2100),
    (49, 200, 512),
    (600, 60, 300),
];

/// Parameters of a product, and the expected result for the sum of element i.
struct ProductCase<'a> {
    product: Product<'a>,
    want: Box<dyn Fn(f64, usize) -> f64 + 'a>,
}

fn cases<'a>(bias: &'a [f32], add: &'a [f32], scale: &'a [f32]) -> Vec<ProductCase<'a>> {
    let row = |i: usize| f64::from(bias[i % bias.len()]);
    let gelu = |x: f64| 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
    let derivative =
        |x: f64| 0.5 * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)) + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let with = |bias, epilogue| Product { bias, epilogue, ..Default::default() };
    vec![
        ProductCase { product: with(None, Epilogue::Identity), want: Box::new(|sum, _| sum) },
        ProductCase {
            product: Product { accumulate: true, ..with(Some(bias), Epilogue::Identity) },
            want: Box::new(|sum, _| sum + 3.0), // a bias is then not used
        },
        ProductCase { product: with(Some(bias), Epilogue::Identity), want: Box::new(move |sum, i| sum + row(i)) },
        ProductCase { product: with(Some(bias), Epilogue::Gelu), want: Box::new(move |sum, i| gelu(sum + row(i))) },
        ProductCase { product: with(None, Epilogue::Add(add)), want: Box::new(move |sum, i| sum + f64::from(add[i])) },
        ProductCase {
            product: with(None, Epilogue::GeluDerivative(add)),
            want: Box::new(move |sum, i| sum * derivative(f64::from(add[i]))),
        },
        ProductCase {
            product: with(Some(bias), Epilogue::Residual { x: add, scale }),
            want: Box::new(move |sum, i| f64::from(scale[i / bias.len()]) * (sum + row(i)) + f64::from(add[i])),
        },
    ]
}

#[test]
fn agrees_with_three_loops_in_both_roundings_for_every_layout_and_any_number_of_threads() {
    let (one, two) = (Pool::new(1).unwrap(), Pool::new(2).unwrap());
    for &(m, n, k) in SHAPES {
        let (a, b) = (WaveMatrix::new(m, k, 0.13), WaveMatrix::new(k, n, 0.07));
        let bias: Vec<f32> = (0..n).map(|j| j as f32 * 0.01 - 1.0).collect();
        let add: Vec<f32> = (0..m * n).map(|i| (i as f32 * 0.3).cos()).collect();
        let scale: Vec<f32> = (0..m).map(|i| (i % 3) as f32 * 0.6).collect();
        for rounding in [Rounding::F32, Rounding::Bf16] {
            let round = |x: f32| if rounding == Rounding::Bf16 && cpu::bf16() { rounded(x) } else { f64::from(x) };
            let columns: Vec<Vec<f64>> = (0..n).map(|j| (0..k).map(|p| round(b.plain[p * n + j])).collect()).collect();
            let sums: Vec<f64> =
                (0..m * n).map(|i| a.plain[i / n * k..][..k].iter().zip(&columns[i % n]).map(|(&x, y)| round(x) * y).sum()).collect();
            for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                let packed = Packed::new(b.mat(b_t), rounding);
                assert_eq!(packed.is_some(), cpu::bf16());
                for (case, ProductCase { product, want }) in cases(&bias, &add, &scale).into_iter().enumerate() {
                    let run = |pool: &Pool, parallel: bool, b_packed: Option<&Packed>| {
                        let mut c = vec![3.0f32; m * n];
                        let (product, a, to) = (Product { rounding, parallel, ..product }, a.mat(a_t), MatMut::new(&mut c, m, n));
                        pool.install(|| match b_packed {
                            Some(packed) => product.run_packed(a, packed, to, pool),
                            None => product.run(a, b.mat(b_t), to, pool),
                        });
                        c
                    };
                    for packed in std::iter::once(None).chain(packed.as_ref().map(Some)) {
                        let what = format!("{rounding:?} {m}x{n}x{k} ({a_t}, {b_t}) case {case} packed {}", packed.is_some());
                        let c = run(&two, true, packed);
                        assert_eq!(c, run(&one, true, packed), "{what}: threads change the result");
                        assert_eq!(c, run(&two, false, packed), "{what}: running on one thread changes the result");
                        for (i, (&c, &sum)) in c.iter().zip(&sums).enumerate() {
                            let want = want(sum, i);
                            let tolerance = 3e-6 * (k as f64).sqrt() + 1e-6 * want.abs();
                            assert!((f64::from(c) - want).abs() < tolerance, "{what} at {i}: {c} not {want}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_tile_is_its_lines_scaled_as_rows_and_as_columns() {
    let pool = Pool::new(1).unwrap();
    // Lines of one element are rows and columns of memory alike.
    for &(m, n, k) in SHAPES.iter().chain(&[(6, 20, 1), (6, 1, 20)]) {
        let (a, b) = (WaveMatrix::new(m, k, 0.13), WaveMatrix::new(k, n, 0.07));
        for rounding in [Rounding::F32, Rounding::Bf16] {
            for columns in [false, true] {
                let (lines, count) = if columns { (&b.transposed, n) } else { (&b.plain, k) };
                let factors: Vec<f32> = (0..count).map(|i| 0.5 + (i as f32 * 0.31).sin()).collect();
                let scaled: Vec<f32> = lines.iter().enumerate().map(|(i, v)| v * factors[i / (lines.len() / count)]).collect();
                let mut words = vec![f32::NAN; PackedTile::words(k, n)];
                let tile = match columns {
                    false => PackedTile::rows(lines, &factors, rounding, &mut words),
                    true => PackedTile::columns(lines, &factors, rounding, &mut words),
                };
                let scaled = Mat::new(&scaled, count, lines.len() / count);
                let (mut c, mut want) = (vec![2.0; m * n], vec![2.0; m * n]);
                let product = Product { rounding, accumulate: true, prefetch: lines, ..Default::default() };
                product.run_tile(a.mat(false), &tile, MatMut::new(&mut c, m, n), &pool);
                product.run(a.mat(false), if columns { scaled.t() } else { scaled }, MatMut::new(&mut want, m, n), &pool);
                for (i, (c, want)) in c.iter().zip(&want).enumerate() {
                    let what = format!("{rounding:?} {m}x{n}x{k} columns {columns} at {i}: {c} not {want}");
                    assert!((c - want).abs() < 3e-6 * (k as f32).sqrt() + 1e-6 * want.abs(), "{what}");
                }
            }
        }
    }
}

#[test]
fn rows_are_summed_once_without_rounding_and_the_product_is_the_same() {
    let (one, two) = (Pool::new(1).unwrap(), Pool::new(2).unwrap());
    // Among them: a packed once for several groups, several groups that pack it each, one row.
    for &(m, n, k) in SHAPES.iter().chain(&[(300, 1700, 40), (600, 900, 700), (1, 40, 30)]) {
        let (a, b) = (WaveMatrix::new(m, k, 0.13), WaveMatrix::new(k, n, 0.07));
        for rounding in [Rounding::F32, Rounding::Bf16] {
            let run = |pool: &Pool, a_t: bool| {
                let (mut c, mut sums) = (vec![0.0; m * n], vec![0.0; m]);
                let product = Product { rounding, parallel: true, ..Default::default() };
                let (a, b) = (a.mat(a_t), b.mat(false));
                let summed = pool.install(|| product.run_with_row_sums(a, b, MatMut::new(&mut c, m, n), &mut sums, pool));
                let mut plain = vec![0.0; m * n];
                pool.install(|| product.run(a, b, MatMut::new(&mut plain, m, n), pool));
                assert!(!summed || c == plain, "{rounding:?} {m}x{n}x{k}: summing changes the product");
                (summed, sums)
            };
            assert!(k == 1 || !run(&one, false).0, "rows along memory are not packed");
            let (summed, sums) = run(&two, true);
            assert_eq!(summed, cpu::bf16() && m > 1);
            assert_eq!(sums, run(&one, true).1, "{rounding:?} {m}x{n}x{k}: threads change the sums");
            for (i, sum) in sums.iter().enumerate().take(if summed { m } else { 0 }) {
                let want: f64 = a.plain[i * k..][..k].iter().map(|&v| f64::from(v)).sum();
                assert!((f64::from(*sum) - want).abs() < 3e-6 * (k as f64).sqrt(), "{rounding:?} {m}x{n}x{k} row {i}: {sum} not {want}");
            }
        }
    }
}

/// Values rounded to words of two bf16.
fn words(values: &[f32]) -> Vec<u32> {
    let half = |x: f32| (rounded(x) as f32).to_bits() >> 16;
    values.chunks(2).map(|two| half(two[0]) | half(two[1]) << 16).collect()
}

#[test]
fn matrices_of_bf16_give_what_their_values_give() {
    if !cpu::bf16() {
        eprintln!("skipped: this CPU does not multiply bf16");
        return;
    }
    let (one, two) = (Pool::new(1).unwrap(), Pool::new(2).unwrap());
    // The last ones: rows that would share the sets of a cache, an inner dimension that is summed in several parts.
    for &(m, n, k) in &[(2, 2, 2), (64, 96, 48), (130, 70, 256), (300, 18, 2100), (50, 200, 512), (600, 60, 300), (20, 40, 1024)] {
        let (a, b) = (WaveMatrix::new(m, k, 0.13), WaveMatrix::new(k, n, 0.07));
        let bias: Vec<f32> = (0..n).map(|j| j as f32 * 0.01 - 1.0).collect();
        let at: Vec<f32> = (0..m * n).map(|i| 2.0 * (i as f32 * 0.3).cos()).collect();
        let product = Product { rounding: Rounding::Bf16, bias: Some(&bias), parallel: true, ..Default::default() };
        let run = |pool: &Pool, a: Mat, b: Mat| {
            let (mut c, mut in_bf16) = (vec![3.0f32; m * n], vec![7; m * n / 2]);
            for epilogue in [Epilogue::GeluDerivative(&at), Epilogue::Identity] {
                let product = Product { epilogue, ..product };
                product.run(a, b, MatMut::new(&mut c, m, n), pool);
                if writes_bf16x2(k) {
                    product.run(a, b, MatMut::bf16x2(&mut in_bf16, m, n), pool);
                    assert_eq!(in_bf16, words(&c), "{m}x{n}x{k}: the result is rounded");
                }
            }
            c
        };
        let (a_words, at_words, b_words) = (words(&a.plain), words(&a.transposed), words(&b.plain));
        let (rows, columns) = (Mat::bf16x2(&a_words, m, k), Mat::bf16x2(&at_words, k, m).t());
        let want = run(&two, a.mat(false), b.mat(false));
        assert_eq!(want, run(&two, rows, b.mat(false)), "{m}x{n}x{k}: rows");
        assert_eq!(want, run(&one, columns, b.mat(true)), "{m}x{n}x{k}: columns");
        assert_eq!(want, run(&two, columns, Mat::bf16x2(&b_words, k, n)), "{m}x{n}x{k}: columns and b");
        assert_eq!(want, run(&one, rows, Mat::bf16x2(&b_words, k, n)), "{m}x{n}x{k}: rows and b");

        let (mut c, mut sums) = (vec![0.0; m * n], vec![0.0; m]);
        assert!(Product { bias: None, ..product }.run_with_row_sums(columns, b.mat(false), MatMut::new(&mut c, m, n), &mut sums, &two));
        for (i, sum) in sums.iter().enumerate() {
            let want: f64 = a.plain[i * k..][..k].iter().map(|&v| rounded(v)).sum();
            assert!((f64::from(*sum) - want).abs() < 3e-6 * (k as f64).sqrt(), "{m}x{n}x{k} row {i}: {sum} not {want}");
        }
    }
}

#[test]
fn takes_the_scratch_memory_it_says() {
    for &(m, n, k) in SHAPES {
        for rounding in [Rounding::F32, Rounding::Bf16] {
            let pool = Pool::new(1).unwrap();
            let (a, b) = (WaveMatrix::new(m, k, 0.1), WaveMatrix::new(k, n, 0.1));
            let mut c = vec![0.0; m * n];
            Product { rounding, parallel: true, ..Default::default() }.run(a.mat(false), b.mat(false), MatMut::new(&mut c, m, n), &pool);
            assert!(pool.scratch_peak() <= scratch(m, n, k, 1), "{rounding:?} {m}x{n}x{k}: {} bytes", pool.scratch_peak());
            let (pool, mut sums) = (Pool::new(1).unwrap(), vec![0.0; m]);
            let product = Product { rounding, parallel: true, ..Default::default() };
            product.run_with_row_sums(a.mat(true), b.mat(false), MatMut::new(&mut c, m, n), &mut sums, &pool);
            let most = scratch(m, n, k, 1) + row_sums_scratch(m, k);
            assert!(pool.scratch_peak() <= most, "{rounding:?} {m}x{n}x{k} with sums: {} bytes", pool.scratch_peak());
            let (pool, mut words) = (Pool::new(1).unwrap(), vec![0.0; PackedTile::words(k, n)]);
            let tile = PackedTile::rows(&b.plain, &vec![1.0; k], rounding, &mut words);
            Product { rounding, ..Default::default() }.run_tile(a.mat(false), &tile, MatMut::new(&mut c, m, n), &pool);
            assert!(pool.scratch_peak() <= scratch(m, n, k, 1), "{rounding:?} {m}x{n}x{k} of a tile: {} bytes", pool.scratch_peak());
        }
    }
}

#[test]
fn the_crate_agrees_with_three_loops_for_every_layout_and_any_number_of_threads() {
    let pool = Pool::new(2).unwrap();
    for &(m, n, k) in &[(1, 1, 1), (3, 5, 7), (17, 33, 9), (64, 96, 48), (130, 70, 257)] {
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.13).sin()).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.07).cos()).collect();
        let bt: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
        let at: Vec<f32> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
        let want: Vec<f64> =
            (0..m * n).map(|i| (0..k).map(|p| a[(i / n) * k + p] as f64 * b[p * n + i % n] as f64).sum::<f64>() + 1.0).collect();
        for (name, a, b) in [
            ("nn", Mat::new(&a, m, k), Mat::new(&b, k, n)),
            ("nt", Mat::new(&a, m, k), Mat::new(&bt, n, k).t()),
            ("tn", Mat::new(&at, k, m).t(), Mat::new(&b, k, n)),
        ] {
            let mut c1 = vec![1.0; m * n];
            let mut c2 = vec![1.0; m * n];
            gemm(a, b, MatMut::new(&mut c1, m, n), true, None);
            pool.install(|| gemm(a, b, MatMut::new(&mut c2, m, n), true, Some(&pool)));
            assert_eq!(c1, c2, "{name} {m}x{n}x{k}: threads change the result");
            for i in 0..m * n {
                assert!((c1[i] as f64 - want[i]).abs() < 1e-4, "{name} {m}x{n}x{k} at {i}: {} not {}", c1[i], want[i]);
            }
        }
    }
}
