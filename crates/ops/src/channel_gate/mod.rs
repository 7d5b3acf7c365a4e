//! A gate on the channels of each image: `y[n, c] = x[n, c]·σ(z[image(n), c])`.
//!
//! - `x`, `y` `[N, C]`, `z` `[images, C]`
//! - `dx` is the same gate on `dy`; `dz = σ(z)·(1 − σ(z))·Σ_tokens dy·x`
//!
//! Sources: Hu et al. 2018 (SE), <https://arxiv.org/abs/1709.01507>; Wang et al. 2020 (ECA), <https://arxiv.org/abs/1910.03151>.

pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::Input::Wave;
use crate::{Case, Layout, Segment, check};

/// Multiplies the channels of each image by a gate.
#[derive(Debug, Clone)]
pub struct ChannelGate {
    /// Which rows belong to which image.
    pub layout: Layout,
}

fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

impl ChannelGate {
    fn check(&self, op: &'static str, inputs: &[&Shape]) -> Result<usize> {
        let (_, cols) = check::matrix(op, "x", inputs[0])?;
        check::shape(op, "x", inputs[0], &[self.layout.tokens(), cols])?;
        check::shape(op, "z", inputs[1], &[self.layout.images(), cols])?;
        Ok(cols)
    }
}

impl Op for ChannelGate {
    fn name(&self) -> &'static str {
        "channel_gate"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("channel_gate", inputs, 2)?;
        self.check("channel_gate", inputs)?;
        Ok(vec![(inputs[0].clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; 2]) };
        let dx = if wants[0] { Some(g.apply1(self.clone(), &[dy, node.inputs[1]])?) } else { None };
        let dz = if wants[1] { Some(g.apply1(GateGradient(self.clone()), &[node.inputs[0], node.inputs[1], dy])?) } else { None };
        Ok(vec![dx, dz])
    }

    fn reference(&self, io: &mut Io) {
        let (x, z) = (io.f32(0), io.f32(1));
        let (_, cols) = io.matrix(0);
        let y = io.out();
        for (tokens, z) in self.layout.image_ranges().zip(z.chunks(cols)) {
            let gate: Vec<f32> = z.iter().map(|&z| sigmoid(z)).collect();
            let range = tokens.start * cols..tokens.end * cols;
            for (x, y) in x[range.clone()].chunks(cols).zip(y[range].chunks_mut(cols)) {
                for ((y, x), gate) in y.iter_mut().zip(x).zip(&gate) {
                    *y = x * gate;
                }
            }
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(&self.layout, io, rec)
    }
}

/// `dz` from `x`, `z` and `dy`.
#[derive(Debug)]
struct GateGradient(ChannelGate);

impl Op for GateGradient {
    fn name(&self) -> &'static str {
        "channel_gate_dz"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("channel_gate_dz", inputs, 3)?;
        self.0.check("channel_gate_dz", inputs)?;
        check::shape("channel_gate_dz", "dy", inputs[2], inputs[0])?;
        Ok(vec![(inputs[1].clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let (x, z, dy) = (io.f32(0), io.f32(1), io.f32(2));
        let (_, cols) = io.matrix(0);
        let dz = io.out();
        dz.fill(0.0);
        for ((tokens, z), dz) in self.0.layout.image_ranges().zip(z.chunks(cols)).zip(dz.chunks_mut(cols)) {
            let range = tokens.start * cols..tokens.end * cols;
            for (x, dy) in x[range.clone()].chunks(cols).zip(dy[range].chunks(cols)) {
                for ((dz, x), dy) in dz.iter_mut().zip(x).zip(dy) {
                    *dz += x * dy;
                }
            }
            for (dz, &z) in dz.iter_mut().zip(z) {
                *dz *= sigmoid(z) * (1.0 - sigmoid(z));
            }
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::gradient(&self.0.layout, io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let layout = Layout::new(vec![Segment { images: 2, height: 3, width: 2 }, Segment { images: 3, height: 1, width: 2 }]);
    let inputs = vec![Wave(vec![layout.tokens(), 9]), Wave(vec![layout.images(), 9])];
    vec![Case::new("two sizes", ChannelGate { layout }, inputs)]
}
