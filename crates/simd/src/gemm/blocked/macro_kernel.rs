//! Macro-kernel: micro-tiles of a block of rows and a group of packed panels, over one chunk of the inner dimension.

use std::ops::Range;

use super::blocking::{LANES, MR, NR_VECTORS, panels};
use super::epilogue::TileEpilogue;
use super::micro_kernel::{self, MicroTile, TileAddend};
use super::output::{SharedOutput, SharedWords};
use super::pack::LeftRows;
use super::prefetch::Prefetch;
use crate::gemm::epilogue::Epilogue;
use crate::gemm::product::Product;

/// Addends and epilogue of the sums of one chunk.
#[derive(Clone, Copy, Default)]
pub struct ChunkEpilogue<'a> {
    /// Bias that is added to every row.
    pub bias: Option<&'a [f32]>,
    /// Matrix of the result's shape that is added.
    pub matrix: Option<&'a [f32]>,
    /// Whether the elements of the result are added.
    pub accumulate: bool,
    /// Operation on complete elements.
    pub epilogue: Epilogue<'a>,
    /// Destination of GELU as bf16x2 words, and the distance of its rows; without, GELU replaces the sums.
    pub words: Option<(SharedWords, usize)>,
}

impl<'a> ChunkEpilogue<'a> {
    /// Addends and epilogue of a chunk of a product.
    pub fn of(product: &Product<'a>, first: bool, last: bool) -> ChunkEpilogue<'a> {
        let accumulate = !first || product.accumulate;
        ChunkEpilogue {
            bias: product.bias.filter(|_| !accumulate),
            matrix: match product.epilogue {
                Epilogue::Add(matrix) if first => Some(matrix),
                _ => None,
            },
            accumulate,
            epilogue: if last { product.epilogue } else { Epilogue::Identity },
            words: None,
        }
    }

    /// Epilogue of the micro-tile that begins with this row and column, at this offset of the result.
    ///
    /// # Safety
    /// Where there are words, they hold the tile.
    unsafe fn of_tile(&self, row: usize, column: usize, at: usize) -> TileEpilogue {
        match (self.epilogue, self.words) {
            (Epilogue::Identity | Epilogue::Add(_), _) => TileEpilogue::Identity,
            (Epilogue::Gelu, None) => TileEpilogue::Gelu,
            // SAFETY: the caller's promise.
            (Epilogue::Gelu, Some((words, distance))) => unsafe {
                TileEpilogue::GeluToBf16x2 { words: words.at(row * distance + column / 2), row: distance }
            },
            (Epilogue::GeluDerivative(x), _) => TileEpilogue::GeluDerivative { x: x[at..].as_ptr() },
            (Epilogue::Residual { x, scale }, _) => TileEpilogue::Residual { x: x[at..].as_ptr(), scale: scale[row..].as_ptr() },
        }
    }
}

/// Multiplies rows of a with the packed `columns` of b over so many steps; `follow` are the words used after them, `prefetch` memory used
/// after those.
///
/// # Safety
/// As [`super::run`]; `b` holds the panels of `columns`, `a` the rows, and nobody else uses this piece of c or of the words.
pub unsafe fn run<const BF16: bool>(
    a: LeftRows,
    rows: Range<usize>,
    steps: usize,
    [b, follow]: [*const u32; 2],
    columns: Range<usize>,
    c: SharedOutput,
    epilogue: &ChunkEpilogue,
    prefetch: &mut Prefetch,
) {
    for panel in panels(columns.clone()) {
        let bias = epilogue.bias.map_or(std::ptr::null(), |bias| bias[panel.start..].as_ptr());
        let here = b.wrapping_add((panel.start - columns.start) * steps);
        let next = if panel.end < columns.end { b.wrapping_add((panel.end - columns.start) * steps) } else { follow };
        for (i, first) in rows.clone().step_by(MR).enumerate() {
            if a.far && panel.start == columns.start && first + MR < rows.end {
                // Later panels find them in the cache.
                a.prefetch(i + 1, steps);
            }
            // SAFETY: micro-panel i of a and this panel of b are packed; the micro-tile of c is inside the piece.
            unsafe {
                let to = c.at(first / MR * c.tile_stride + panel.start - c.first_column);
                let tile = match (epilogue.matrix, epilogue.accumulate) {
                    (Some(matrix), _) => matrix[first * c.row_stride + panel.start..].as_ptr(),
                    (None, true) => to,
                    (None, false) => std::ptr::null(),
                };
                let tile = MicroTile {
                    steps,
                    a: a.data.add(i * a.panel_stride),
                    a_row: a.row_stride,
                    a_step: a.step_stride,
                    b: here,
                    c: to,
                    c_row: c.row_stride,
                    bf16: c.bf16,
                    addend: TileAddend { bias, tile },
                    epilogue: epilogue.of_tile(first, panel.start, first * c.row_stride + panel.start),
                    // A panel is as many vectors of words a step as micro-tiles prefetch.
                    prefetch: match i < NR_VECTORS && !prefetch.skips_panels {
                        true => next.wrapping_add(i * steps * LANES),
                        false => prefetch.next(steps * LANES).unwrap_or(here),
                    },
                };
                micro_kernel::run::<BF16>(MR.min(rows.end - first), panel.len(), &tile);
            }
        }
    }
}
