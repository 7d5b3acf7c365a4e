//! A fixed linear map on the rows of parameter tables: resampled position embeddings, biases looked up and resampled, tables put together.
//!
//! `y[r, c] = Σ w·x_k[row, c]` over the entries (k, row, w) of row r. The weights are constants of the architecture.
//!
//! - `x_k`: any number of tables. With `inner` = 1 a table is `[rows, width]`; with a larger one it is `[rows/inner, width, inner]`, so
//!   that `(row, c)` lies at `row / inner · inner · width + c · inner + row % inner`: tables that keep heads or channels in the middle
//! - `y`: any shape of `rows · width` elements; a row without entries is zero
//! - the gradient is the transposed map
//!
//! [`Cubic`] has the weights of a bicubic resampling.

mod cubic;
pub(crate) mod gpu;

pub use cubic::Cubic;

use std::sync::Arc;

use esvit_gpu::Recorder;
use esvit_graph::{DType, Error, GpuIo, Graph, Io, Node, Op, Result, Shape, Value, volume};

use crate::Case;
use crate::Input::Wave;

/// A sparse matrix by rows, from the rows of a table to those of the result.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sparse {
    /// First entry of every row, and the number of entries at the end.
    pub first: Vec<u32>,
    /// Row of the operand, and weight.
    pub entries: Vec<(u32, f32)>,
}

impl Sparse {
    fn empty() -> Sparse {
        Sparse { first: vec![0], entries: Vec::new() }
    }

    fn transposed(&self, rows: usize) -> Sparse {
        let mut first = vec![0u32; rows + 1];
        self.entries.iter().for_each(|&(row, _)| first[row as usize + 1] += 1);
        for r in 0..rows {
            first[r + 1] += first[r];
        }
        let mut next = first.clone();
        let mut entries = vec![(0, 0.0); self.entries.len()];
        for r in 0..self.first.len() - 1 {
            for &(row, weight) in &self.entries[self.first[r] as usize..self.first[r + 1] as usize] {
                entries[next[row as usize] as usize] = (r as u32, weight);
                next[row as usize] += 1;
            }
        }
        Sparse { first, entries }
    }
}

/// Builds a [`RowMap`] row by row.
#[derive(Debug)]
pub struct RowMapBuilder {
    width: usize,
    rows: usize,
    parts: Vec<TableMap>,
}

/// The part of the map that reads one table.
#[derive(Clone, Debug)]
struct TableMap {
    inner: usize,
    map: Sparse,
    /// The map whose transpose is the gradient, where it is not `map`.
    gradient_map: Option<Sparse>,
}

impl RowMapBuilder {
    /// A map of rows of `width` elements, from tables with these `inner` sizes.
    pub fn new(width: usize, inner: &[usize]) -> RowMapBuilder {
        RowMapBuilder {
            width,
            rows: 0,
            parts: inner.iter().map(|&inner| TableMap { inner, map: Sparse::empty(), gradient_map: None }).collect(),
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends a row that is the sum of these (table, row of the table, weight).
    pub fn row(&mut self, entries: &[(usize, usize, f32)]) {
        self.row_with_gradient(entries, entries);
    }

    /// Appends a row whose gradient is that of another row, `gradient`: see [`Cubic::gradient_taps`].
    pub fn row_with_gradient(&mut self, entries: &[(usize, usize, f32)], gradient: &[(usize, usize, f32)]) {
        if entries != gradient {
            self.parts.iter_mut().for_each(|part| _ = part.gradient_map.get_or_insert_with(|| part.map.clone()));
        }
        let maps: [fn(&mut TableMap) -> Option<&mut Sparse>; 2] = [|part| Some(&mut part.map), |part| part.gradient_map.as_mut()];
        for (of, entries) in maps.iter().zip([entries, gradient]) {
            for &(table, row, weight) in entries {
                if let Some(map) = of(&mut self.parts[table]) {
                    map.entries.push((row as u32, weight));
                }
            }
            for map in self.parts.iter_mut().filter_map(of) {
                map.first.push(map.entries.len() as u32);
            }
        }
        self.rows += 1;
    }

    /// The operator, with a result of this shape.
    pub fn finish(self, shape: &[usize]) -> RowMap {
        RowMap { shape: shape.to_vec(), width: self.width, rows: self.rows, parts: self.parts.into() }
    }
}

/// The operator.
#[derive(Clone, Debug)]
pub struct RowMap {
    shape: Shape,
    width: usize,
    rows: usize,
    parts: Arc<[TableMap]>,
}

/// Offset of a row's first element; the others follow at a stride of `inner`.
fn place(row: usize, width: usize, inner: usize) -> usize {
    row / inner * inner * width + row % inner
}

/// `y (+)= map·x`.
fn apply(map: &Sparse, width: usize, x: &[f32], x_inner: usize, y: &mut [f32], y_inner: usize) {
    for r in 0..map.first.len() - 1 {
        let to = place(r, width, y_inner);
        for &(row, weight) in &map.entries[map.first[r] as usize..map.first[r + 1] as usize] {
            let from = place(row as usize, width, x_inner);
            if x_inner == 1 && y_inner == 1 {
                for (y, x) in y[to..to + width].iter_mut().zip(&x[from..from + width]) {
                    *y += weight * x;
                }
            } else {
                for c in 0..width {
                    y[to + c * y_inner] += weight * x[from + c * x_inner];
                }
            }
        }
    }
}

impl Op for RowMap {
    fn name(&self) -> &'static str {
        "row_map"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        crate::check::arity("row_map", inputs, self.parts.len())?;
        if volume(&self.shape) != self.rows * self.width {
            let what = format!("{} rows of {} do not fill {:?}", self.rows, self.width, self.shape);
            return Err(Error::Attribute { op: "row_map", what });
        }
        for (TableMap { inner, map, .. }, shape) in self.parts.iter().zip(inputs) {
            let block = inner * self.width;
            let needed = map.entries.iter().map(|e| e.0 as usize + 1).max().unwrap_or(0);
            if !volume(shape).is_multiple_of(block.max(1)) || volume(shape) < needed * self.width {
                let want = format!("rows of {} in blocks of {inner}, {needed} at least", self.width);
                return Err(Error::Shape { op: "row_map", operand: "table", want, got: (*shape).clone() });
            }
        }
        Ok(vec![(self.shape.clone(), DType::F32)])
    }

    fn gradient(&self, g: &mut Graph, node: &Node, dys: &[Option<Value>], wants: &[bool]) -> Result<Vec<Option<Value>>> {
        let Some(dy) = dys[0] else { return Ok(vec![None; node.inputs.len()]) };
        let mut grads = Vec::with_capacity(node.inputs.len());
        for (k, (&input, &wanted)) in node.inputs.iter().zip(wants).enumerate() {
            let shape = g.shape(input).clone();
            let TableMap { inner, map, gradient_map } = &self.parts[k];
            grads.push(match wanted {
                true => Some(g.apply1(
                    RowMapGradient {
                        map: gradient_map.as_ref().unwrap_or(map).transposed(volume(&shape) / self.width).into(),
                        width: self.width,
                        inner: *inner,
                        of: self.shape.clone(),
                        shape: shape.clone(),
                    },
                    &[dy],
                )?),
                false => None,
            });
        }
        Ok(grads)
    }

    fn reference(&self, io: &mut Io) {
        let inputs = io.inputs.clone();
        let y = io.out();
        y.fill(0.0);
        for (TableMap { inner, map, .. }, x) in self.parts.iter().zip(inputs) {
            apply(map, self.width, x.f32(), *inner, y, 1);
        }
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        let parts: Vec<_> = self.parts.iter().zip(&io.inputs).map(|(part, x)| (&part.map, x, part.inner)).collect();
        gpu::record(&parts, self.width, &io.outputs[0], 1, rec)
    }
}

/// One table's gradient.
#[derive(Debug)]
struct RowMapGradient {
    map: Arc<Sparse>,
    width: usize,
    inner: usize,
    of: Shape,
    shape: Shape,
}

impl Op for RowMapGradient {
    fn name(&self) -> &'static str {
        "row_map_dx"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>> {
        crate::check::arity("row_map_dx", inputs, 1)?;
        crate::check::shape("row_map_dx", "dy", inputs[0], &self.of)?;
        Ok(vec![(self.shape.clone(), DType::F32)])
    }

    fn reference(&self, io: &mut Io) {
        let dy = io.f32(0);
        let dx = io.out();
        dx.fill(0.0);
        apply(&self.map, self.width, dy, 1, dx, self.inner);
    }

    fn gpu(&self, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
        gpu::record(&[(&self.map, &io.inputs[0], 1)], self.width, &io.outputs[0], self.inner, rec)
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let resampled = {
        // A table of 4 × 4 rows to 3 × 5, below one row of its own.
        let mut map = RowMapBuilder::new(6, &[1, 1]);
        map.row(&[(0, 0, 1.0), (1, 0, 1.0)]);
        let (rows, cols) = (Cubic::new(4, 3, 3.0 / 4.0), Cubic::new(4, 5, 5.0 / 4.0));
        for i in 0..3 {
            for j in 0..5 {
                let taps = |(a, wa): (usize, f32)| cols.taps(j).map(move |(b, wb)| (1, 1 + a * 4 + b, wa * wb));
                map.row(&rows.taps(i).flat_map(taps).collect::<Vec<_>>());
            }
        }
        map.finish(&[16, 6])
    };
    let mixed = {
        let mut map = RowMapBuilder::new(2, &[1, 3]);
        for r in 0..9 {
            match r % 4 {
                0 => map.row(&[(0, r / 2, 1.0)]),
                1 => map.row(&[(1, r % 6, 1.0)]),
                2 => map.row(&[]),
                _ => map.row(&[(1, 5, 0.5), (0, 0, -2.0)]),
            }
        }
        map.finish(&[3, 6])
    };
    vec![
        Case::new("a resampled table below a row of another", resampled, vec![Wave(vec![1, 6]), Wave(vec![17, 6])]),
        Case::new("a table with its width in the middle, rows used often and never", mixed, vec![Wave(vec![5, 2]), Wave(vec![2, 2, 3])]),
    ]
}
