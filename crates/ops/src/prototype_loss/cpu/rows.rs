//! Kernels over one row of a tile's logits: whole registers, then the elements that are left.

use esvit_simd::vector::{Vector, VectorKernel, dispatch, precise_exp2};

/// First elements of a row's registers.
#[inline(always)]
fn registers<V: Vector>(n: usize) -> impl Iterator<Item = usize> {
    (0..n / V::LANES * V::LANES).step_by(V::LANES)
}

/// Elements behind the last whole register.
#[inline(always)]
fn tail<V: Vector>(n: usize) -> std::ops::Range<usize> {
    n / V::LANES * V::LANES..n
}

/// Inner product of two rows of equal length.
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    dispatch(Dot { x, y: &y[..x.len()] })
}

struct Dot<'a> {
    x: &'a [f32],
    y: &'a [f32],
}

impl VectorKernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(self) -> f32 {
        let n = self.x.len();
        // Four sums: rows are short, and one would be waited for.
        const SUMS: usize = 4;
        // SAFETY: the CPU has V's instructions; registers lie inside the rows, which are equally long.
        unsafe {
            let mut sums = [V::splat(0.0); SUMS];
            let (x, y) = (self.x.as_ptr(), self.y.as_ptr());
            let whole = n / (SUMS * V::LANES) * SUMS * V::LANES;
            for at in (0..whole).step_by(SUMS * V::LANES) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let at = at + i * V::LANES;
                    *sum = V::load(x.add(at)).mul_add(V::load(y.add(at)), *sum);
                }
            }
            for at in registers::<V>(n - whole) {
                sums[0] = V::load(x.add(whole + at)).mul_add(V::load(y.add(whole + at)), sums[0]);
            }
            let rest: f32 = tail::<V>(n).map(|i| self.x[i] * self.y[i]).sum();
            sums[0].add(sums[1]).add(sums[2].add(sums[3])).total() + rest
        }
    }
}

/// `y = (row − center)·scale`; leaves `e = 2^(y − max)`, max the larger of the row's and the one before; returns max, `Σ e` and `Σ e·y`.
pub(super) fn teacher_exponentials(row: &mut [f32], center: &[f32], scale: f32, before: f32) -> (f32, f32, f32) {
    dispatch(TeacherExponentials { center: &center[..row.len()], row, scale, before })
}

struct TeacherExponentials<'a> {
    row: &'a mut [f32],
    center: &'a [f32],
    scale: f32,
    before: f32,
}

impl VectorKernel for TeacherExponentials<'_> {
    type Output = (f32, f32, f32);

    #[inline(always)]
    fn run<V: Vector>(self) -> (f32, f32, f32) {
        let TeacherExponentials { row, center, scale, before } = self;
        let n = row.len();
        let mut max = before;
        // SAFETY: the CPU has V's instructions; registers lie inside the row and the center, which are equally long.
        unsafe {
            let (by, mut most) = (V::splat(scale), V::splat(before));
            for at in registers::<V>(n) {
                let y = V::load(row.as_ptr().add(at)).sub(V::load(center.as_ptr().add(at))).mul(by);
                most = y.max(most);
                y.store(row.as_mut_ptr().add(at));
            }
            for i in tail::<V>(n) {
                row[i] = (row[i] - center[i]) * scale;
                max = if row[i] > max { row[i] } else { max };
            }
            let most = most.largest();
            max = if most > max { most } else { max };
            let (to, mut sum, mut energy) = (V::splat(max), V::splat(0.0), V::splat(0.0));
            for at in registers::<V>(n) {
                let y = V::load(row.as_ptr().add(at));
                let e = precise_exp2(y.sub(to));
                sum = sum.add(e);
                energy = e.mul_add(y, energy);
                e.store(row.as_mut_ptr().add(at));
            }
            let (mut sum, mut energy) = (sum.total(), energy.total());
            for i in tail::<V>(n) {
                let y = row[i];
                row[i] = (y - max).exp2();
                sum += row[i];
                energy += row[i] * y;
            }
            (max, sum, energy)
        }
    }
}

/// The maximum of `y = row·scale` and the one before, and `Σ 2^(y − max)`; a scale above 0.
pub(super) fn student_exponentials(row: &[f32], scale: f32, before: f32) -> (f32, f32) {
    dispatch(StudentExponentials { row, scale, before })
}

struct StudentExponentials<'a> {
    row: &'a [f32],
    scale: f32,
    before: f32,
}

impl VectorKernel for StudentExponentials<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<V: Vector>(self) -> (f32, f32) {
        let StudentExponentials { row, scale, before } = self;
        let n = row.len();
        // SAFETY: the CPU has V's instructions; registers lie inside the row.
        unsafe {
            let mut most = V::splat(f32::NEG_INFINITY);
            for at in registers::<V>(n) {
                most = V::load(row.as_ptr().add(at)).max(most);
            }
            let most = row[tail::<V>(n)].iter().fold(most.largest(), |max, &v| if v > max { v } else { max }) * scale;
            let max = if most > before { most } else { before };
            let (by, to, mut sum) = (V::splat(scale), V::splat(-max), V::splat(0.0));
            for at in registers::<V>(n) {
                sum = sum.add(precise_exp2(V::load(row.as_ptr().add(at)).mul_add(by, to)));
            }
            let rest: f32 = row[tail::<V>(n)].iter().map(|v| (v * scale - max).exp2()).sum();
            (max, sum.total() + rest)
        }
    }
}

/// `q = 2^((row − center)·scale − lse)`.
pub(super) fn teacher_probabilities(row: &mut [f32], center: &[f32], scale: f32, lse: f32) {
    dispatch(TeacherProbabilities { center: &center[..row.len()], row, scale, lse });
}

struct TeacherProbabilities<'a> {
    row: &'a mut [f32],
    center: &'a [f32],
    scale: f32,
    lse: f32,
}

impl VectorKernel for TeacherProbabilities<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let TeacherProbabilities { row, center, scale, lse } = self;
        let n = row.len();
        // SAFETY: the CPU has V's instructions; registers lie inside the row and the center, which are equally long.
        unsafe {
            let (by, to) = (V::splat(scale), V::splat(-lse));
            for at in registers::<V>(n) {
                let y = V::load(row.as_ptr().add(at)).sub(V::load(center.as_ptr().add(at)));
                precise_exp2(y.mul_add(by, to)).store(row.as_mut_ptr().add(at));
            }
        }
        for i in tail::<V>(n) {
            row[i] = ((row[i] - center[i]) * scale - lse).exp2();
        }
    }
}

/// `p = weight·2^(row·scale − lse)`.
pub(super) fn student_probabilities(row: &mut [f32], scale: f32, lse: f32, weight: f32) {
    dispatch(StudentProbabilities { row, scale, lse, weight });
}

struct StudentProbabilities<'a> {
    row: &'a mut [f32],
    scale: f32,
    lse: f32,
    weight: f32,
}

impl VectorKernel for StudentProbabilities<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let StudentProbabilities { row, scale, lse, weight } = self;
        let n = row.len();
        // SAFETY: the CPU has V's instructions; registers lie inside the row.
        unsafe {
            let (by, to, times) = (V::splat(scale), V::splat(-lse), V::splat(weight));
            for at in registers::<V>(n) {
                let p = precise_exp2(V::load(row.as_ptr().add(at)).mul_add(by, to));
                p.mul(times).store(row.as_mut_ptr().add(at));
            }
        }
        for p in &mut row[tail::<V>(n)] {
            *p = weight * (*p * scale - lse).exp2();
        }
    }
}
