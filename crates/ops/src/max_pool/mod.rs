//! Largest value of each channel in a sliding window.
//!
//! - `x` `[N, C]`; `y` `[N', C]`, and which tap it came from, `[N', C]`; padding is never the largest
//! - of equal values the first in row-major order wins, as PyTorch's; the gradient goes to that token alone

mod cpu;
pub(crate) mod gpu;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Value};

use crate::Input::Apart;
use crate::{Case, Filter, Layout, Segment, check};

/// Maximum over windows of the grids of a layout.
#[derive(Clone, Debug)]
pub struct MaxPool {
    /// Grids of `x`.
    pub layout: Layout,
    /// Kernel, stride and padding; less padding than kernel, so that no window is empty.
    pub filter: Filter,
}

impl MaxPool {
    /// Grids of `y`.
    pub fn output(&self) -> Layout {
        self.filter.output(&self.layout)
    }
}

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("max_pool", inputs, 1)?;
        self.filter.check("max_pool", &self.layout)?;
        if 2 * self.filter.padding > self.filter.kernel {
            return Err(Error::Attribute { op: "max_pool", what: "padding may be at most half the kernel".into() });
        }
        let (_, cols) = check::matrix("max_pool", "x", inputs[0])?;
        check::shape("max_pool", "x", inputs[0], &[self.layout.tokens(), cols])?;
        let shape = vec![self.output().tokens(), cols];
        Ok(vec![(shape.clone(), DType::F32), (shape, DType::U32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None]) };
        Ok(vec![Some(g.apply1(MaxPoolGradient(self.clone()), &[dy, node.outputs[1]])?)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::reference(self, io);
    }

    fn fast(&self, io: &mut Io) {
        cpu::fast(self, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::forward(self, io, rec)
    }
}

/// `dx` from `dy` and the winning taps.
#[derive(Debug)]
struct MaxPoolGradient(MaxPool);

impl Op for MaxPoolGradient {
    fn name(&self) -> &'static str {
        "max_pool_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        check::arity("max_pool_dx", inputs, 2)?;
        let (_, cols) = check::matrix("max_pool_dx", "dy", inputs[0])?;
        check::shape("max_pool_dx", "dy", inputs[0], &[self.0.output().tokens(), cols])?;
        check::shape("max_pool_dx", "taps", inputs[1], inputs[0])?;
        Ok(vec![(vec![self.0.layout.tokens(), cols], DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        cpu::gradient(&self.0, io);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::gradient(&self.0, io, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let case = |why, segments: &[(usize, usize, usize)], cols, [kernel, stride, padding]: [usize; 3]| {
        let layout = Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>());
        let inputs = vec![Apart(vec![layout.tokens(), cols])];
        Case::new(why, MaxPool { layout, filter: Filter { kernel, stride, padding } }, inputs)
    };
    vec![
        case("ResNet's: windows that overlap, two grids, odd sides", &[(2, 6, 5), (3, 3, 4)], 7, [3, 2, 1]),
        case("a window larger than the grid", &[(2, 1, 2)], 3, [4, 1, 2]),
        case("tokens no window sees", &[(2, 5, 5)], 20, [2, 3, 0]),
    ]
}
