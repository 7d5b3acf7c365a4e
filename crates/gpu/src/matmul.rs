//! `C[m, n] = A·B`, with a bias over the columns where one is given. Sums over the inner axis are taken in an order that depends on the
//! sizes and the kernel alone, so results repeat bit for bit.
//!
//! Three kernels: single precision, and for operands in half precision one on matrix units and one without. [`Adapter::half`] says which of
//! the two an adapter has; where it has neither, single precision takes their place. Operands and results are stored in single precision
//! always, and summed in it.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::kernel::Needs;
use crate::{Adapter, Grid, Kernel, Recorder, Result, View};

/// Mirrors `Params` in `matmul/operands.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
    k_piece: u32,
    a_first: u32,
    a_stride: u32,
    b_first: u32,
    b_stride: u32,
    c_first: u32,
    c_stride: u32,
    c_piece: u32,
    flags: u32,
}

/// Mirrors `Params` in `matmul/sum.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MatmulSumParams {
    m: u32,
    n: u32,
    pieces: u32,
    c_first: u32,
    c_stride: u32,
    flags: u32,
    pad: [u32; 2],
}

const OPERANDS: &str = include_str!("matmul/operands.wgsl");
const EPILOGUE: &str = include_str!("matmul/epilogue.wgsl");
const TILES: &str = include_str!("matmul/tiles.wgsl");

static F32: Kernel = Kernel::new::<Params>("matmul", &[include_str!("matmul/f32.wgsl"), TILES, OPERANDS, EPILOGUE], "main", 4);
static F16: Kernel = Kernel::new::<Params>("matmul_f16", &[include_str!("matmul/f16.wgsl"), TILES, OPERANDS, EPILOGUE], "main", 4)
    .needing(Needs::HalfPrecision);
static COOPERATIVE: Kernel =
    Kernel::new::<Params>("matmul_cooperative", &[include_str!("matmul/cooperative.wgsl"), OPERANDS, EPILOGUE], "main", 4)
        .needing(Needs::CooperativeMatrix);
static SUM: Kernel = Kernel::new::<MatmulSumParams>("matmul_sum", &[include_str!("matmul/sum.wgsl"), EPILOGUE], "main", 3);

/// Kernels of the product, for checks that need no GPU.
pub static KERNELS: &[&Kernel] = &[&F32, &F16, &COOPERATIVE, &SUM];

const A_BY_INNER: u32 = 1;
const B_BY_OUTER: u32 = 2;
const BIAS: u32 = 4;
const ADD: u32 = 8;

/// Workgroups below which a large GPU is idle: then the inner axis is divided.
const BUSY: usize = 256;
/// Length of a piece of the inner axis at least.
const PIECE: usize = 256;

/// A kernel, and rows and columns of the tile of one workgroup.
type TiledKernel = (&'static Kernel, [usize; 2]);

/// Way to multiply operands in half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfProduct {
    /// Matrix units.
    Cooperative,
    /// Ordinary arithmetic on operands in half precision.
    Shader,
    /// None: products stay in single precision.
    Absent,
}

impl HalfProduct {
    /// Name as shown to users.
    pub fn name(self) -> &'static str {
        match self {
            HalfProduct::Cooperative => "cooperative matrices, f16",
            HalfProduct::Shader => "shader arithmetic, f16",
            HalfProduct::Absent => "shader arithmetic, f32",
        }
    }

    fn kernel(self) -> TiledKernel {
        match self {
            HalfProduct::Cooperative => (&COOPERATIVE, [128, 128]),
            HalfProduct::Shader => (&F16, [128, 64]),
            HalfProduct::Absent => (&F32, [128, 64]),
        }
    }
}

impl Adapter {
    /// Way to multiply operands in half precision on this adapter.
    pub fn half(&self) -> HalfProduct {
        if self.cooperative_matrix {
            HalfProduct::Cooperative
        } else if self.half_precision {
            HalfProduct::Shader
        } else {
            HalfProduct::Absent
        }
    }
}

/// A matrix in memory, row-major as `[outer, inner]` or, `transposed`, as the other way round.
#[derive(Clone, Copy, Debug)]
pub struct GpuOperand<'a> {
    /// Memory of the matrix.
    pub view: &'a View,
    /// Whether it is stored with its axes exchanged.
    pub transposed: bool,
}

impl<'a> GpuOperand<'a> {
    /// An operand as it is stored.
    pub fn plain(view: &'a View) -> Self {
        GpuOperand { view, transposed: false }
    }

    /// An operand with its axes exchanged.
    pub fn transposed(view: &'a View) -> Self {
        GpuOperand { view, transposed: true }
    }
}

/// `c[m, n] = a·b`: `a` is `[m, k]` (transposed `[k, m]`), `b` is `[k, n]` (transposed `[n, k]`). Nothing is too long for a binding:
/// operands are cut along their rows, and results with them.
#[derive(Clone, Copy, Debug)]
pub struct GpuProduct<'a> {
    a: GpuOperand<'a>,
    b: GpuOperand<'a>,
    c: &'a View,
    size: [usize; 3],
    bias: Option<&'a View>,
    half: bool,
    add: bool,
}

impl<'a> GpuProduct<'a> {
    /// The plain product, `size` = `[m, n, k]`.
    pub fn new(a: GpuOperand<'a>, b: GpuOperand<'a>, c: &'a View, size: [usize; 3]) -> Self {
        GpuProduct { a, b, c, size, bias: None, half: false, add: false }
    }

    /// This product with a bias `[n]`.
    #[must_use]
    pub fn bias(self, bias: Option<&'a View>) -> Self {
        GpuProduct { bias, ..self }
    }

    /// This product with its operands rounded to half precision, where the adapter multiplies those.
    #[must_use]
    pub fn half(self, half: bool) -> Self {
        GpuProduct { half, ..self }
    }

    /// This product added to what is in `c`.
    #[must_use]
    pub fn adding(self, add: bool) -> Self {
        GpuProduct { add, ..self }
    }

    /// Records the product.
    ///
    /// # Errors
    /// When 64 rows of an operand are larger than a binding may be.
    pub fn record(self, rec: &mut Recorder) -> Result<()> {
        let tiled = if self.half { rec.gpu().adapter().half() } else { HalfProduct::Absent }.kernel();
        self.record_with(rec, tiled)
    }

    fn record_with(self, rec: &mut Recorder, tiled: TiledKernel) -> Result<()> {
        let [m, n, k] = self.size;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let (a, b) = (self.a.transposed, self.b.transposed);
        let rows = rec.row_pieces(m, 4 * if a { n } else { n.max(k) });
        let cols = if b { rec.row_pieces(n, 4 * k) } else { whole(n) };
        let inner = match (a, b) {
            (false, true) => whole(k),
            (false, false) => rec.row_pieces(k, 4 * n),
            (true, true) => rec.row_pieces(k, 4 * m),
            (true, false) => rec.row_pieces(k, 4 * m.max(n)),
        };
        for rows in &rows {
            for cols in &cols {
                for inner in &inner {
                    rec.scoped(|rec| self.part(rec, tiled, rows, cols, inner))?;
                }
            }
        }
        Ok(())
    }

    /// Records one part, every operand of it a binding.
    fn part(&self, rec: &mut Recorder, tiled: TiledKernel, rows: &Range<usize>, cols: &Range<usize>, inner: &Range<usize>) -> Result<()> {
        let [m, n, k] = self.size;
        // An operand is cut along its rows; along its columns the kernel begins later.
        let part_of = |o: GpuOperand, outer: &Range<usize>, inner: &Range<usize>, [outers, inners]: [usize; 2]| match o.transposed {
            false => (o.view.rows(outer.start, outer.len(), inners), inner.start, inners),
            true => (o.view.rows(inner.start, inner.len(), outers), outer.start, outers),
        };
        let (a, a_first, a_stride) = part_of(self.a, rows, inner, [m, k]);
        let (b, b_first, b_stride) = part_of(self.b, inner, cols, [k, n]);
        let c = self.c.rows(rows.start, rows.len(), n);
        let first = inner.start == 0;
        let bias = self.bias.filter(|_| first).map(|bias| bias.part(4 * cols.start as u64, 4 * cols.len() as u64));
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let epilogue = flag(bias.is_some(), BIAS) | flag(self.add || !first, ADD);
        let layout = flag(self.a.transposed, A_BY_INNER) | flag(self.b.transposed, B_BY_OUTER);

        let (kernel, [tile_m, tile_n]) = tiled;
        let [m, len, k] = [rows.len(), cols.len(), inner.len()];
        let tiles = m.div_ceil(tile_m) * len.div_ceil(tile_n);
        let pieces = inner_pieces(tiles, k, rec.longest_binding() as usize / (4 * m * len));
        let partial = (pieces > 1).then(|| rec.scratch((4 * pieces * m * len) as u64));
        let (to, c_first, c_stride, flags) = match &partial {
            Some(partial) => (partial, 0, len, layout),
            None => (&c, cols.start, n, layout | epilogue),
        };
        let params = Params {
            m: m as u32,
            n: len as u32,
            k: k as u32,
            k_piece: k.div_ceil(pieces) as u32,
            a_first: a_first as u32,
            a_stride: a_stride as u32,
            b_first: b_first as u32,
            b_stride: b_stride as u32,
            c_first: c_first as u32,
            c_stride: c_stride as u32,
            c_piece: (m * len) as u32,
            flags,
        };
        let Grid([x, y, _]) = Grid::fold(tiles);
        let bias = bias.as_ref().unwrap_or(&b);
        rec.dispatch(kernel, &[&a, &b, bias, to], &params, Grid([x, y, pieces as u32]))?;
        let Some(partial) = &partial else { return Ok(()) };
        let [m32, n32, c_first, c_stride] = [m, len, cols.start, n].map(|v| v as u32);
        let params = MatmulSumParams { m: m32, n: n32, pieces: pieces as u32, c_first, c_stride, flags: epilogue, pad: [0; 2] };
        rec.dispatch(&SUM, &[partial, bias, &c], &params, Grid::elements(m * len, 256))
    }
}

/// An axis that no operand's rows lie along.
fn whole(len: usize) -> Vec<Range<usize>> {
    std::iter::once(0..len).collect()
}

/// Pieces of the inner axis; none of them is empty, and no more than `most` or one.
fn inner_pieces(tiles: usize, k: usize, most: usize) -> usize {
    let wanted = BUSY.div_ceil(tiles).min(k / PIECE).min(most).max(1);
    k.div_ceil(k.div_ceil(wanted))
}

#[cfg(test)]
mod tests;
