//! Sums in a fixed order: two kernels, and the WGSL that kernels of all crates list for theirs.

use bytemuck::{Pod, Zeroable};

use crate::{Grid, Kernel, Recorder, Result, View};

/// Mirrors `Params` in `reduce/sum_pieces.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PiecesParams {
    pieces: u32,
    len: u32,
    pad: [u32; 2],
}

/// Mirrors `Params` in `reduce/column_sum.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ColumnParams {
    rows: u32,
    cols: u32,
    piece: u32,
    first: u32,
}

/// WGSL of sums over the columns of a row, for kernels whose workgroups own four rows.
pub const OVER_ROWS: &str = include_str!("reduce/over_rows.wgsl");
/// WGSL of sums over the rows of a column, for kernels whose workgroups own 64 columns.
pub const OVER_COLUMNS: &str = include_str!("reduce/over_columns.wgsl");
/// WGSL of sums and maxima over the 256 threads of a workgroup.
pub const OVER_WORKGROUP: &str = include_str!("reduce/over_workgroup.wgsl");

/// Kernel that adds pieces.
pub static SUM_PIECES: Kernel = Kernel::new::<PiecesParams>("sum_pieces", &[include_str!("reduce/sum_pieces.wgsl")], "main", 2);
/// Kernel that adds the rows of each piece.
pub static COLUMN_SUM: Kernel =
    Kernel::new::<ColumnParams>("column_sum", &[include_str!("reduce/column_sum.wgsl"), OVER_COLUMNS], "main", 2);

/// Rows that one workgroup adds up.
const PIECE: usize = 512;

/// Records `y[len] = Σ_p x[p, len]`.
pub fn sum_pieces(rec: &mut Recorder, x: &View, y: &View, pieces: usize, len: usize) -> Result<()> {
    let params = PiecesParams { pieces: pieces as u32, len: len as u32, pad: [0; 2] };
    rec.dispatch(&SUM_PIECES, &[&x.part(0, (pieces * len * 4) as u64), &y.part(0, (len * 4) as u64)], &params, Grid::elements(len, 256))
}

/// Records `y[cols] = Σ_rows x[rows, cols]`.
pub fn column_sum(rec: &mut Recorder, x: &View, y: &View, rows: usize, cols: usize) -> Result<()> {
    let bound = rec.row_pieces(rows, 4 * cols);
    let pieces: usize = bound.iter().map(|rows| rows.len().div_ceil(PIECE)).sum();
    let partial = if pieces == 1 { y.clone() } else { rec.scratch((pieces * cols * 4) as u64) };
    let mut done = 0;
    for rows in bound {
        let count = rows.len().div_ceil(PIECE);
        let params = ColumnParams { rows: rows.len() as u32, cols: cols as u32, piece: PIECE as u32, first: done as u32 };
        let x = x.rows(rows.start, rows.len(), cols);
        rec.dispatch(&COLUMN_SUM, &[&x, &partial], &params, Grid([cols.div_ceil(64) as u32, count as u32, 1]))?;
        done += count;
    }
    if pieces > 1 {
        sum_pieces(rec, &partial, y, pieces, cols)?;
    }
    Ok(())
}
