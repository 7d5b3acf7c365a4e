//! `C[m, n] = A·B`, with a bias over the columns where one is given. Sums over the inner axis are taken in an order that depends on the sizes
//! alone, so results repeat bit for bit.

use bytemuck::{Pod, Zeroable};

use crate::reduce::sum_pieces;
use crate::{Grid, Kernel, Recorder, Result, View};

/// Mirrors `Params` in `matmul.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    m: u32,
    n: u32,
    k: u32,
    k_piece: u32,
    flags: u32,
    c_first: u32,
    pad: [u32; 2],
}

/// The tiled product.
pub static MATMUL: Kernel = Kernel::new::<Params>("matmul", include_str!("matmul.wgsl"), "main", 4);

const TILE: usize = 64;
const A_BY_INNER: u32 = 1;
const B_BY_OUTER: u32 = 2;
const BIAS: u32 = 4;

/// Fewer workgroups than this leave a large GPU idle: then the inner axis is cut.
const BUSY: usize = 256;
/// Shortest piece of the inner axis.
const PIECE: usize = 256;

/// A matrix in memory, row-major as `[outer, inner]` or, `transposed`, as the other way round.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Where it is.
    pub view: &'a View,
    /// Stored with its axes exchanged.
    pub transposed: bool,
}

impl<'a> Operand<'a> {
    /// As it is.
    pub fn plain(view: &'a View) -> Self {
        Operand { view, transposed: false }
    }

    /// With its axes exchanged.
    pub fn transposed(view: &'a View) -> Self {
        Operand { view, transposed: true }
    }
}

/// Records `c[m, n] = a·b (+ bias)`: `a` is `[m, k]` (transposed `[k, m]`), `b` is `[k, n]` (transposed `[n, k]`), `bias` `[n]`.
///
/// Rows of `a` and `c`, or with `a` transposed the inner axis, may be longer than a binding: they are cut.
///
/// # Errors
/// When `b`, or with `a` transposed `c`, is larger than a binding may be.
pub fn matmul(rec: &mut Recorder, a: Operand, b: Operand, bias: Option<&View>, c: &View, [m, n, k]: [usize; 3]) -> Result<()> {
    if a.transposed { long_inner(rec, a.view, b, c, [m, n, k]) } else { long_outer(rec, a.view, b, bias, c, [m, n, k]) }
}

/// Cuts `m` into pieces that can be bound.
fn long_outer(rec: &mut Recorder, a: &View, b: Operand, bias: Option<&View>, c: &View, [m, n, k]: [usize; 3]) -> Result<()> {
    for rows in rec.row_pieces(m, 4 * n.max(k)) {
        let (a, c) = (a.rows(rows.start, rows.len(), k), c.rows(rows.start, rows.len(), n));
        let size = [rows.len(), n, k];
        let pieces = inner_pieces(size);
        if pieces == 1 || bias.is_some() {
            product(rec, Operand::plain(&a), b, bias, &c, size, k, 0)?;
        } else {
            let partial = rec.scratch((pieces * rows.len() * n * 4) as u64);
            product(rec, Operand::plain(&a), b, None, &partial, size, k.div_ceil(pieces), 0)?;
            sum_pieces(rec, &partial, &c, pieces, rows.len() * n)?;
        }
    }
    Ok(())
}

/// `aᵀ·b` over many rows of both: cuts them into pieces that can be bound and keep the GPU busy, and adds their products.
fn long_inner(rec: &mut Recorder, a: &View, b: Operand, c: &View, [m, n, k]: [usize; 3]) -> Result<()> {
    assert!(!b.transposed, "the inner axis of both must be their rows");
    let bound = rec.row_pieces(k, 4 * m.max(n));
    let pieces: Vec<usize> = bound.iter().map(|rows| inner_pieces([m, n, rows.len()])).collect();
    let total: usize = pieces.iter().sum();
    let partial = if total == 1 { c.clone() } else { rec.scratch((total * m * n * 4) as u64) };
    let mut done = 0;
    for (rows, pieces) in bound.into_iter().zip(pieces) {
        let (a, b) = (a.rows(rows.start, rows.len(), m), b.view.rows(rows.start, rows.len(), n));
        product(rec, Operand::transposed(&a), Operand::plain(&b), None, &partial, [m, n, rows.len()], rows.len().div_ceil(pieces), done)?;
        done += pieces;
    }
    if total > 1 {
        sum_pieces(rec, &partial, c, total, m * n)?;
    }
    Ok(())
}

/// Pieces of the inner axis; none of them is empty.
fn inner_pieces([m, n, k]: [usize; 3]) -> usize {
    let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
    let wanted = BUSY.div_ceil(tiles).min(k / PIECE).max(1);
    k.div_ceil(k.div_ceil(wanted))
}

/// One dispatch; its first piece is number `c_first` of those in `c`.
fn product(
    rec: &mut Recorder,
    a: Operand,
    b: Operand,
    bias: Option<&View>,
    c: &View,
    [m, n, k]: [usize; 3],
    k_piece: usize,
    c_first: usize,
) -> Result<()> {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = flag(a.transposed, A_BY_INNER) | flag(b.transposed, B_BY_OUTER) | flag(bias.is_some(), BIAS);
    let params = Params { m: m as u32, n: n as u32, k: k as u32, k_piece: k_piece as u32, flags, c_first: c_first as u32, pad: [0; 2] };
    let grid = Grid([n.div_ceil(TILE) as u32, m.div_ceil(TILE) as u32, k.div_ceil(k_piece) as u32]);
    rec.dispatch(&MATMUL, &[a.view, b.view, bias.unwrap_or(b.view), c], &params, grid)
}
