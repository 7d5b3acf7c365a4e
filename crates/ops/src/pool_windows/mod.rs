//! Windows pooled to further keys and values, behind the tokens of each image.
//!
//! A pooled window is `P[m, c] = b + Σ_l weight[l]·k[l, c]` over its w² tokens, padding being zero; without weights their mean. Its key is
//! `P·key_scale[head]`, its value `P·value_scale[head]`: the original pools keys in both places.
//!
//! - `kv` `[images·(globals + tokens), 2·C]`, `y` `[images·(globals + tokens + windows), 2·C]`
//! - `key_scale`, `value_scale` `[1, H]`; `weight` `[1, w²]` and `b` `[1]` (both or none)
//!
//! Source: `Long2DSCSelfAttention` of microsoft/esvit, `add_pooled`.

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::Input::Wave;
use crate::{Case, Layout, Segment, check};

/// The operator.
#[derive(Debug, Clone)]
pub struct PoolWindows {
    /// The grids, without global tokens.
    pub layout: Layout,
    /// Tokens of an image before its grid.
    pub globals: usize,
    /// Side of a window, w.
    pub window: usize,
    /// Heads, each with scales of its own.
    pub heads: usize,
}

impl PoolWindows {
    fn windows(&self, s: &Segment) -> usize {
        s.height.div_ceil(self.window) * s.width.div_ceil(self.window)
    }

    /// Rows of all images, without and with the pooled windows.
    fn rows(&self) -> [usize; 2] {
        let image = |s: &Segment| self.globals + s.tokens_per_image();
        let segments = || self.layout.segments().iter();
        [segments().map(|s| s.images * image(s)).sum(), segments().map(|s| s.images * (image(s) + self.windows(s))).sum()]
    }

    fn check(&self, op: &'static str, inputs: &[&Shape]) -> Result<usize> {
        let (_, width) = check::matrix(op, "kv", inputs[0])?;
        check::shape(op, "kv", inputs[0], &[self.rows()[0], width])?;
        if self.heads == 0 || width % (2 * self.heads) != 0 {
            return Err(Error::Attribute { op, what: format!("{width} columns are not keys and values of {} heads", self.heads) });
        }
        check::shape(op, "key_scale", inputs[1], &[1, self.heads])?;
        check::shape(op, "value_scale", inputs[2], &[1, self.heads])?;
        Ok(width)
    }

    /// Calls `f(segment, first row before, first row after)` for every image.
    fn for_each_image(&self, mut f: impl FnMut(&Segment, usize, usize)) {
        let (mut from, mut to) = (0, 0);
        for s in self.layout.segments() {
            for _ in 0..s.images {
                f(s, from, to);
                from += self.globals + s.tokens_per_image();
                to += self.globals + s.tokens_per_image() + self.windows(s);
            }
        }
    }

    /// Calls `f(token in window, row of the image)` for the tokens of a window.
    fn for_each_token(&self, s: &Segment, m: usize, mut f: impl FnMut(usize, usize)) {
        let (w, wide) = (self.window, s.width.div_ceil(self.window));
        for l in 0..w * w {
            let (row, col) = (m / wide * w + l / w, m % wide * w + l % w);
            if row < s.height && col < s.width {
                f(l, self.globals + row * s.width + col);
            }
        }
    }

    /// P of a window, `[C]`.
    fn pooled(&self, s: &Segment, m: usize, kv: &[f32], first: usize, width: usize, learned: Option<(&[f32], f32)>) -> Vec<f32> {
        let c = width / 2;
        let mut p = vec![learned.map_or(0.0, |l| l.1); c];
        self.for_each_token(s, m, |l, row| {
            let weight = learned.map_or(1.0 / (self.window * self.window) as f32, |w| w.0[l]);
            for (p, k) in p.iter_mut().zip(&kv[(first + row) * width..][..c]) {
                *p += weight * k;
            }
        });
        p
    }
}

/// Weights and bias of a learned pooling.
fn learned<'a>(io: &Io<'a>, count: usize) -> Option<(&'a [f32], f32)> {
    (count == 5).then(|| (io.f32(3), io.scalar(4)))
}

impl Op for PoolWindows {
    fn name(&self) -> &'static str {
        "pool_windows"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        if inputs.len() != 3 {
            check::arity("pool_windows", inputs, 5)?;
            check::shape("pool_windows", "weight", inputs[3], &[1, self.window * self.window])?;
            check::shape("pool_windows", "b", inputs[4], &[1])?;
        }
        let width = self.check("pool_windows", inputs)?;
        Ok(vec![(vec![self.rows()[1], width], DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; node.inputs.len()]) };
        let mut inputs = node.inputs.clone();
        inputs.push(dy);
        Ok(g.apply(PoolGradient(self.clone()), &inputs)?.into_iter().map(Some).collect())
    }

    fn reference(&self, io: &mut Io) {
        let (kv, key_scale, value_scale) = (io.f32(0), io.f32(1), io.f32(2));
        let learned = learned(io, io.inputs.len());
        let (_, width) = io.matrix(0);
        let (c, d) = (width / 2, width / 2 / self.heads);
        let y = io.out();
        self.for_each_image(|s, from, to| {
            let rows = self.globals + s.tokens_per_image();
            y[to * width..(to + rows) * width].copy_from_slice(&kv[from * width..(from + rows) * width]);
            for m in 0..self.windows(s) {
                let p = self.pooled(s, m, kv, from, width, learned);
                let (keys, values) = y[(to + rows + m) * width..][..width].split_at_mut(c);
                for (i, p) in p.iter().enumerate() {
                    keys[i] = p * key_scale[i / d];
                    values[i] = p * value_scale[i / d];
                }
            }
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(self, io, rec)
    }
}

/// The gradient of every operand, from the operands and `dy`.
#[derive(Debug)]
struct PoolGradient(PoolWindows);

impl Op for PoolGradient {
    fn name(&self) -> &'static str {
        "pool_windows_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        if inputs.len() != 4 {
            check::arity("pool_windows_dx", inputs, 6)?;
        }
        let width = self.0.check("pool_windows_dx", inputs)?;
        check::shape("pool_windows_dx", "dy", inputs[inputs.len() - 1], &[self.0.rows()[1], width])?;
        Ok(inputs[..inputs.len() - 1].iter().map(|s| ((*s).clone(), DType::F32)).collect())
    }

    fn reference(&self, io: &mut Io) {
        let op = &self.0;
        let count = io.inputs.len() - 1;
        let (kv, key_scale, value_scale, dy) = (io.f32(0), io.f32(1), io.f32(2), io.f32(count));
        let learned = learned(io, count);
        let (_, width) = io.matrix(0);
        let (c, d) = (width / 2, width / 2 / op.heads);
        let mut outputs: Vec<&mut [f32]> = io.outputs.iter_mut().map(|o| o.f32()).collect();
        outputs[1..].iter_mut().for_each(|o| o.fill(0.0));
        op.for_each_image(|s, from, to| {
            let rows = op.globals + s.tokens_per_image();
            outputs[0][from * width..(from + rows) * width].copy_from_slice(&dy[to * width..(to + rows) * width]);
            for m in 0..op.windows(s) {
                let p = op.pooled(s, m, kv, from, width, learned);
                let (dkeys, dvalues) = dy[(to + rows + m) * width..][..width].split_at(c);
                let dp: Vec<f32> = (0..c).map(|i| key_scale[i / d] * dkeys[i] + value_scale[i / d] * dvalues[i]).collect();
                for i in 0..c {
                    outputs[1][i / d] += p[i] * dkeys[i];
                    outputs[2][i / d] += p[i] * dvalues[i];
                }
                op.for_each_token(s, m, |l, row| {
                    let at = (from + row) * width;
                    let weight = learned.map_or(1.0 / (op.window * op.window) as f32, |w| w.0[l]);
                    for i in 0..c {
                        outputs[0][at + i] += weight * dp[i];
                    }
                    if learned.is_some() {
                        outputs[3][l] += (0..c).map(|i| kv[at + i] * dp[i]).sum::<f32>();
                    }
                });
                if learned.is_some() {
                    outputs[4][0] += dp.iter().sum::<f32>();
                }
            }
        });
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::gradient(&self.0, io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let layout = Layout::new(vec![Segment { images: 2, height: 4, width: 3 }, Segment { images: 1, height: 2, width: 2 }]);
    let op = PoolWindows { layout, globals: 1, window: 2, heads: 2 };
    let common = || vec![Wave(vec![op.rows()[0], 8]), Wave(vec![1, 2]), Wave(vec![1, 2])];
    let with_weights = [common(), vec![Wave(vec![1, 4]), Wave(vec![1])]].concat();
    vec![Case::new("means, with padding in a window", op.clone(), common()), Case::new("learned weights and a bias", op, with_weights)]
}
