// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

use super::softmax::{ScoreTile, SoftmaxGradient};
use super::*;

/// Rounds to bf16, to the nearest, ties to even.
fn rounded(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// A matrix of waves, its rows, and all packings of it.
struct PackedMatrix {
    n: usize,
    values: Vec<f32>,
    packed: Vec<u32>,
    vnni: Vec<u32>,
    transposed: Vec<u32>,
}

impl PackedMatrix {
    fn new(rows: usize, n: usize, frequency: f32, scale: f32) -> PackedMatrix {
        let values: Vec<f32> = (0..rows * n).map(|i| (i as f32 * frequency).sin()).collect();
        let mut packed = vec![9; rows * words(n)];
        let mut vnni = vec![9; rows.div_ceil(2) * lanes(n)];
        let mut transposed = vec![9; n.div_ceil(2) * line(rows)];
        let at: Vec<*const f32> = values.chunks(n).map(<[f32]>::as_ptr).collect();
        // SAFETY: the callers ask for bf16; sizes as the packings say.
        unsafe {
            pack_rows(&at, n, 1, &[RowPart { column: 0, scale, to: packed.as_mut_ptr() }]);
            pack_vnni(packed.as_ptr(), rows, n, vnni.as_mut_ptr());
            pack_transposed(packed.as_ptr(), rows, n, transposed.as_mut_ptr(), line(rows));
        }
        let values = values.iter().map(|v| rounded(scale * v)).collect();
        PackedMatrix { n, values, packed, vnni, transposed }
    }

    fn get(&self, row: usize, column: usize) -> f64 {
        f64::from(self.values[row * self.n + column])
    }
}

fn skipped() -> bool {
    if !crate::cpu::bf16() {
        eprintln!("skipped: this CPU does not multiply bf16");
    }
    !crate::cpu::bf16()
}

/// Factor of scores.
const FACTOR: f32 = 0.7;

const SIZES: &[(usize, usize)] =
    &[(1, 1), (2, 3), (4, 8), (9, 12), (16, 16), (25, 24), (37, 31), (49, 32), (50, 40), (57, 64), (64, 33), (70, 80), (130, 5)];

#[test]
fn rows_that_are_packed_are_copied_and_padding_is_zero() {
    if skipped() {
        return;
    }
    let rows = 5;
    for n in [2, 8, 24, 32, 40, 64, 70] {
        let values: Vec<f32> = (0..rows * 3 * n).map(|i| (i as f32 * 0.3).sin()).collect();
        let half: Vec<u32> =
            values.chunks(2).map(|two| rounded(two[0]).to_bits() >> 16 | rounded(two[1]).to_bits() & 0xffff_0000).collect();
        let mut at: Vec<*const f32> = values.chunks(3 * n).map(<[f32]>::as_ptr).collect();
        let mut at_half: Vec<*const u32> = half.chunks(3 * n / 2).map(<[u32]>::as_ptr).collect();
        (at[3], at_half[3]) = (std::ptr::null(), std::ptr::null());
        let (mut packed, mut copied) = (vec![9; rows * words(n)], vec![8; rows * words(n)]);
        let part = |to: &mut [u32]| [RowPart { column: n, scale: 1.0, to: to.as_mut_ptr() }];
        // SAFETY: rows of three parts, sizes as the packing says.
        unsafe {
            pack_rows(&at, n, 1, &part(&mut packed));
            copy_rows(&at_half, n, &part(&mut copied));
        }
        assert_eq!(packed, copied, "{n}");
    }
}

#[test]
fn scores_and_gradients_of_probabilities_agree_with_three_loops() {
    if skipped() {
        return;
    }
    for &(t, d) in SIZES {
        let (k, q) = (PackedMatrix::new(t, d, 0.3, 1.0), PackedMatrix::new(t, d, 0.17, 0.7));
        let line = line(t);
        let bias: Vec<f32> = (0..t * line).map(|i| (i as f32 * 0.05).cos()).collect();
        let masks: Vec<f32> = (0..2 * line).map(|i| if i % 3 == 0 { 1.0 } else { 0.0 }).collect();
        let region: Vec<u8> = (0..t).map(|i| (i % 2) as u8).collect();
        let product =
            Bf16Product { steps: d.div_ceil(2), a: k.packed.as_ptr(), a_row: words(d), a_step: 1, b: q.transposed.as_ptr(), b_step: line };
        let (mut s, mut max) = (vec![0.0; t * line], vec![f32::NEG_INFINITY; line]);
        let (mut dp, mut dots) = (vec![0.0; t * line], vec![0.0; line]);
        // SAFETY: sizes as the product says.
        unsafe {
            for at in (0..t).step_by(64) {
                let scores = Scores {
                    bias: Some(BiasRows { base: bias.as_ptr().cast_mut(), starts: &[] }),
                    masks: Some(RegionMask { shares: masks.as_ptr(), value: -5.0, region: &region }),
                    line,
                    to: s.as_mut_ptr(),
                    max: max.as_mut_ptr(),
                };
                product.scores(t, at..(at + 64).min(t), &scores);
            }
            product.store_and_dot(t, 0..t, bias.as_ptr(), line, dp.as_mut_ptr(), dots.as_mut_ptr());
        }
        for i in 0..t {
            let (mut largest, mut sum) = (f64::NEG_INFINITY, 0.0);
            for j in 0..t {
                let product: f64 = (0..d).map(|c| q.get(i, c) * k.get(j, c)).sum();
                let want = product + f64::from(bias[j * line + i] - 5.0 * masks[usize::from(region[j]) * line + i]);
                assert!((f64::from(s[j * line + i]) - want).abs() < 1e-5, "{t} {d}: score {i} {j}");
                assert!((f64::from(dp[j * line + i]) - product).abs() < 1e-5, "{t} {d}: sum {i} {j}");
                largest = largest.max(want);
                sum += product * f64::from(bias[j * line + i]);
            }
            assert!((f64::from(max[i]) - largest).abs() < 1e-5);
            assert!((f64::from(dots[i]) - sum).abs() < 1e-4, "{t} {d}: dots {i}: {} not {sum}", dots[i]);
        }
    }
}

#[test]
fn rows_go_where_they_belong() {
    if skipped() {
        return;
    }
    for &(t, d) in SIZES {
        // A as rows (inner dimension: its columns) and as a transpose (inner dimension: its rows).
        let (a, x) = (PackedMatrix::new(t, t, 0.11, 1.0), PackedMatrix::new(t, d, 0.23, 1.0));
        let rows =
            Bf16Product { steps: t.div_ceil(2), a: a.packed.as_ptr(), a_row: words(t), a_step: 1, b: x.vnni.as_ptr(), b_step: lanes(d) };
        let columns = Bf16Product { a: a.vnni.as_ptr(), a_row: 1, a_step: lanes(t), ..rows };
        let factors: Vec<f32> = (0..t).map(|i| 1.0 + i as f32).collect();
        for (product, transposed) in [(rows, false), (columns, true)] {
            let mut y = vec![0.5; t * (d + 3)];
            // SAFETY: rows of more than d floats.
            unsafe { product.store_rows(t, d, 0.5, Some(&factors), true, y.as_mut_ptr(), d + 3) };
            for i in 0..t {
                for c in 0..d + 3 {
                    let sum: f64 = match c < d {
                        true => (0..t).map(|j| if transposed { a.get(j, i) } else { a.get(i, j) } * x.get(j, c)).sum(),
                        false => 0.0,
                    };
                    let (got, want) = (f64::from(y[i * (d + 3) + c]), 0.5 + 0.5 * f64::from(factors[i]) * sum);
                    assert!((got - want).abs() < 1e-5 * (1.0 + want.abs()), "{t} {d} ({transposed}): {i} {c}: {got} not {want}");
                }
            }
            let (mut plain, mut half) = (vec![0.0; t * d], vec![9; t * (d + 3)]);
            // SAFETY: rows of d floats, and of more than d bf16.
            unsafe {
                product.store_rows(t, d, 0.5, Some(&factors), false, plain.as_mut_ptr(), d);
                product.store_bf16_rows(t, d, 0.5, Some(&factors), half.as_mut_ptr(), d + 3);
            }
            for (i, got) in half.iter().enumerate() {
                let (row, column) = (i / (d + 3), i % (d + 3));
                let want = if column < d { (rounded(plain[row * d + column]).to_bits() >> 16) as u16 } else { 9 };
                assert_eq!(*got, want, "{t} {d} ({transposed}): bf16 {row} {column}");
            }
        }
    }
}

#[test]
fn softmax_and_its_gradient_are_packed_as_products_take_them() {
    if skipped() {
        return;
    }
    let half = |word: u32, high: bool| f64::from(f32::from_bits(if high { word & 0xffff_0000 } else { word << 16 }));
    for t in [1, 2, 7, 16, 25, 40, 49, 57, 64, 70, 196] {
        let line = line(t);
        let scores: Vec<f32> = (0..t * line).map(|i| if i % line < t { (i as f32 * 0.37).sin() * 9.0 } else { 0.0 }).collect();
        let dp: Vec<f32> = (0..t * line).map(|i| if i % line < t { (i as f32 * 0.21).cos() } else { 0.0 }).collect();
        let mut max = vec![0.0f32; line];
        for (i, max) in max.iter_mut().enumerate() {
            *max = (0..t).map(|j| scores[j * line + i]).fold(f32::NEG_INFINITY, f32::max);
        }
        let (mut s, mut inverse, mut dots) = (scores.clone(), vec![0.0; line], vec![0.0; line]);
        let mut p_vnni = vec![0; t.div_ceil(2) * line];
        let (mut p, mut ds, mut vnni) = (vec![0; t * line / 2], vec![0; t * line / 2], vec![0; t.div_ceil(2) * line]);
        let mut dbias = vec![1.0; t * line];
        let tile = ScoreTile { rows: t, columns: 0..t, line, factor: FACTOR, s: s.as_mut_ptr() };
        // SAFETY: sizes as the tile says.
        unsafe {
            tile.exponentials_vnni(max.as_ptr(), inverse.as_mut_ptr(), p_vnni.as_mut_ptr());
            let first = inverse.clone();
            tile.exponentials(max.as_ptr(), inverse.as_mut_ptr());
            assert!(first.iter().zip(&inverse).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs()));
        }
        for i in 0..t {
            dots[i] = (0..t).map(|j| s[j * line + i] * dp[j * line + i]).sum();
        }
        // SAFETY: as above.
        unsafe {
            let (p, ds, vnni) = (p.as_mut_ptr(), ds.as_mut_ptr(), vnni.as_mut_ptr());
            let dbias = Some(BiasRows { base: dbias.as_mut_ptr(), starts: &[] });
            tile.gradient(&SoftmaxGradient {
                dp: dp.as_ptr(),
                inverse: inverse.as_ptr(),
                column_dots: dots.as_ptr(),
                dbias,
                p,
                ds,
                ds_vnni: vnni,
            });
        }
        for i in 0..t {
            let e: Vec<f64> = (0..t).map(|j| (f64::from(FACTOR) * f64::from(scores[j * line + i] - max[i])).exp2()).collect();
            let sum: f64 = e.iter().sum();
            let dots: f64 = (0..t).map(|j| e[j] / sum * f64::from(dp[j * line + i])).sum();
            for j in 0..t {
                let p_want = e[j] / sum;
                let ds_want = p_want * (f64::from(dp[j * line + i]) - dots);
                let near = |got: f64, want: f64, what: &str| {
                    assert!((got - want).abs() < 4e-3 * want.abs() + 1e-6, "{t}: {what} {i} {j}: {got} not {want}");
                };
                near(half(p_vnni[j / 2 * line + i], j % 2 == 1) * f64::from(inverse[i]), p_want, "p vnni");
                near(half(p[j * line / 2 + i / 2], i % 2 == 1), p_want, "p");
                near(half(ds[j * line / 2 + i / 2], i % 2 == 1), ds_want, "ds");
                near(half(vnni[j / 2 * line + i], j % 2 == 1), ds_want, "ds vnni");
                assert!((f64::from(dbias[j * line + i]) - 1.0 - ds_want).abs() < 1e-5, "{t}: dbias {i} {j}");
            }
            if t % 2 == 1 {
                assert_eq!(p_vnni[t / 2 * line + i] >> 16, 0);
                assert_eq!(vnni[t / 2 * line + i] >> 16, 0);
            }
        }
    }
}
