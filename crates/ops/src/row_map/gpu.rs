use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::Result;

use super::Sparse;

/// Mirrors `Params` in `row_map.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    width: u32,
    x_inner: u32,
    y_inner: u32,
    entries: u32,
    accumulate: u32,
    pad: [u32; 2],
}

static ROW_MAP: Kernel = Kernel::new::<Params>("row_map", &[include_str!("row_map.wgsl")], "main", 3);

pub(crate) static KERNELS: &[&Kernel] = &[&ROW_MAP];

/// Adds up the maps of some tables, each with the `inner` of its table.
pub(super) fn record(parts: &[(&Sparse, &View, usize)], width: usize, y: &View, y_inner: usize, rec: &mut Recorder) -> Result<()> {
    for (n, &(map, x, x_inner)) in parts.iter().enumerate() {
        let rows = map.first.len() - 1;
        if rows * width == 0 {
            continue;
        }
        // Offsets, then entries as (row, bits of the weight).
        let mut words: Vec<u32> = map.first.clone();
        words.extend(map.entries.iter().flat_map(|&(row, weight)| [row, weight.to_bits()]));
        let table = crate::constant(rec, "a map of rows", &words)?;
        let params = Params {
            rows: rows as u32,
            width: width as u32,
            x_inner: x_inner as u32,
            y_inner: y_inner as u32,
            entries: map.first.len() as u32,
            accumulate: u32::from(n > 0),
            pad: [0; 2],
        };
        rec.dispatch(&ROW_MAP, &[x, &table, y], &params, Grid::elements(rows * width, 256))?;
    }
    Ok(())
}
