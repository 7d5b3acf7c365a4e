use super::*;
use crate::cpu;
use crate::gemm::{Packed, Rounding};

/// Rounds to bf16, to the nearest, ties to even, where products round.
fn rounded(x: f32, rounding: Rounding) -> f64 {
    if rounding == Rounding::F32 || !cpu::bf16() {
        return f64::from(x);
    }
    let bits = x.to_bits();
    f64::from(f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
}

fn wave(len: usize, frequency: f32, scale: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * frequency).sin() * scale).collect()
}

/// Layer with a weight `[out, width]` and a bias.
struct TestLinear {
    weight: Vec<f32>,
    bias: Vec<f32>,
    width: usize,
}

impl TestLinear {
    fn new(width: usize, out: usize) -> TestLinear {
        TestLinear { weight: wave(out * width, 0.07, 1.0 / (width as f32).sqrt()), bias: wave(out, 0.3, 0.5), width }
    }

    fn mat(&self) -> Mat<'_> {
        Mat::new(&self.weight, self.bias.len(), self.width).t()
    }

    fn layer<'a>(&'a self, packed: Option<&'a Packed>, bias: bool) -> ChainLayer<'a> {
        ChainLayer { weight: packed.map_or(ChainWeight::Plain(self.mat()), ChainWeight::Packed), bias: bias.then_some(&self.bias) }
    }

    fn plain(&self, x: &[f32], bias: bool, rounding: Rounding) -> Vec<f32> {
        let [x, weight] = [x, &self.weight].map(|v| v.iter().map(|&v| rounded(v, rounding)).collect::<Vec<f64>>());
        let row = |x: &[f64]| -> Vec<f32> {
            let sum = |w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
            weight.chunks(self.width).zip(&self.bias).map(|(w, &b)| (sum(w) + if bias { f64::from(b) } else { 0.0 }) as f32).collect()
        };
        x.chunks(self.width).flat_map(row).collect()
    }
}

fn gelu(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = (0.5 * f64::from(*x) * (1.0 + libm::erf(f64::from(*x) / std::f64::consts::SQRT_2))) as f32);
}

fn normalized(x: &[f32], width: usize, norm: &ChainNorm) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    x.chunks(width).zip(y.chunks_mut(width)).for_each(|(x, y)| _ = lanes::layer_norm(x, norm.gamma, norm.beta, norm.eps, y));
    y
}

/// Few rows and many; rows that end inside a block of eight, elements inside a panel and inside a word; several chunks of either product.
const SIZES: &[(usize, usize, usize, usize)] = &[
    (7, 33, 50, 21),
    (200, 48, 130, 48),
    (150, 600, 1100, 130),
    (5, 40, 3000, 30),
    (523, 33, 51, 21),
    (1000, 96, 384, 96),
    (600, 300, 70, 17),
    (520, 40, 1100, 50),
    (700, 1100, 40, 64),
];

#[test]
fn agrees_with_its_steps_in_both_roundings_and_for_any_number_of_threads() {
    let (one, two) = (Pool::new(1).unwrap(), Pool::new(2).unwrap());
    for &(rows, width, inner, out) in SIZES {
        let (x, r) = (wave(rows * width, 0.13, 2.0), wave(rows * out, 0.11, 1.0));
        let (gamma, beta) = (wave(width, 0.4, 1.0), wave(width, 0.2, 0.1));
        let norm = ChainNorm { eps: 1e-5, gamma: &gamma, beta: &beta };
        let (first, second, only) = (TestLinear::new(width, inner), TestLinear::new(inner, out), TestLinear::new(width, out));
        for rounding in [Rounding::F32, Rounding::Bf16] {
            let packed = [&first, &second, &only].map(|l| Packed::new(l.mat(), rounding));
            for case in 0..16 {
                let [has_norm, has_hidden, bias, adds] = [1, 2, 4, 8].map(|bit| case & bit > 0);
                let mut want = if has_norm { normalized(&x, width, &norm) } else { x.clone() };
                if has_hidden {
                    want = first.plain(&want, bias, rounding);
                    gelu(&mut want);
                }
                want = if has_hidden { &second } else { &only }.plain(&want, bias, rounding);
                match adds {
                    true => want.iter_mut().zip(&r).for_each(|(y, r)| *y += r),
                    false => gelu(&mut want),
                }
                let run = |pool: &Pool, is_packed: bool| {
                    let of = |i: usize| packed[i].as_ref().filter(|_| is_packed);
                    let last = if has_hidden { second.layer(of(1), bias) } else { only.layer(of(2), bias) };
                    let epilogue = if adds { Epilogue::Add(&r) } else { Epilogue::Gelu };
                    let hidden = has_hidden.then(|| first.layer(of(0), bias));
                    let chain = Chain { rounding, norm: has_norm.then_some(norm), hidden, last, epilogue };
                    let mut c = vec![9.0; rows * out];
                    pool.install(|| chain.run(Mat::new(&x, rows, width), MatMut::new(&mut c, rows, out), pool));
                    let sizes = ChainSizes { rows, width, hidden: has_hidden.then_some(inner), out, norm: has_norm };
                    let (took, said) = (pool.scratch_peak(), chain_scratch(&sizes, pool.threads()));
                    (c, took, said)
                };
                for is_packed in [false, true] {
                    let what = format!("{rounding:?} {rows}x{width}x{inner}x{out} case {case} packed {is_packed}");
                    let fresh = Pool::new(1).unwrap();
                    let (c, took, said) = run(&fresh, is_packed);
                    assert!(took <= said, "{what}: {took} bytes of scratch memory, not {said}");
                    assert_eq!(c, run(&two, is_packed).0, "{what}: threads change the result");
                    assert_eq!(c, run(&one, is_packed).0, "{what}: the result changes");
                    // A hidden element that is rounded the other way moves the sum by a part of 256.
                    let tolerance = if rounding == Rounding::Bf16 { 4e-3 } else { 2e-5 };
                    for (i, (c, want)) in c.iter().zip(&want).enumerate() {
                        assert!((c - want).abs() < tolerance * (1.0 + want.abs()), "{what} at {i}: {c} not {want}");
                    }
                }
            }
        }
    }
}
