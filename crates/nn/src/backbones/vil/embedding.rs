//! Patches of pixels or tokens, global tokens, absolute positions.

use esvit_graph::{Graph, Result, Value};
use esvit_ops::Layout;
use esvit_ops::gather_rows::GatherRows;
use esvit_ops::position::AddPositions;
use esvit_ops::row_map::{Cubic, RowMapBuilder};

use super::EPS;
use crate::layers::{INIT_STD, LinearLayer, NormLayer};
use crate::spec::VilStage;
use crate::{Init, Scope};

pub(super) struct VilEmbedding {
    dim: usize,
    /// Side of the nominal grid.
    side: usize,
    globals: usize,
    /// `[1, globals, C]`.
    global: Option<Value>,
    positions: Option<Positions>,
    projection: LinearLayer,
    norm: Option<NormLayer>,
}

/// Tables of absolute positions: of the global tokens, and for rows and columns half the channels each.
struct Positions {
    global: Value,
    rows: Value,
    cols: Value,
}

impl VilEmbedding {
    /// The embedding of a stage with a nominal grid of `side × side`; `input` is the width of the stage before, or none for pixels.
    pub fn new(g: &mut Graph, scope: &mut Scope, stage: &VilStage, side: usize, input: Option<usize>, norm: bool) -> Result<VilEmbedding> {
        let VilStage { dim, globals, .. } = *stage;
        let init = Init::Normal(INIT_STD);
        let global = if globals > 0 { Some(scope.parameter(g, "cls_token", &[1, globals, dim], init)?) } else { None };
        let positions = match stage.absolute_position {
            true => Some(Positions {
                global: scope.parameter(g, "cls_pos_embed", &[1, globals, dim], init)?,
                rows: scope.parameter(g, "x_pos_embed", &[1, side, dim / 2], init)?,
                cols: scope.parameter(g, "y_pos_embed", &[1, side, dim / 2], init)?,
            }),
            false => None,
        };
        let mut proj = scope.child("proj");
        let projection = match input {
            None => LinearLayer::patch_convolution(g, &mut proj, stage.patch_size, dim)?,
            Some(input) => LinearLayer::token_convolution(g, &mut proj, stage.patch_size, input, dim)?,
        };
        let norm = if norm { Some(NormLayer::new(g, &mut scope.child("norm_embed"), dim, EPS)?) } else { None };
        Ok(VilEmbedding { dim, side, globals, global, positions, projection, norm })
    }

    /// Patches to tokens, the global ones first.
    pub fn forward(&self, g: &mut Graph, patches: Value, grids: &Layout, layout: &Layout) -> Result<Value> {
        let mut x = self.projection.forward(g, patches)?;
        if let Some(norm) = &self.norm {
            x = norm.forward(g, x)?;
        }
        if self.globals > 0 {
            x = g.apply1(GatherRows::padded(grids, self.globals, 0), &[x])?;
        }
        match self.table(g, grids)? {
            Some(table) => g.apply1(AddPositions { layout: layout.clone() }, &[x, table]),
            None => Ok(x),
        }
    }

    /// Summands of the tokens of every segment, `[Σ (globals + tokens), C]`: global tokens, and positions where they are absolute.
    fn table(&self, g: &mut Graph, grids: &Layout) -> Result<Option<Value>> {
        if self.global.is_none() && self.positions.is_none() {
            return Ok(None);
        }
        let tables: Vec<Value> = self.global.into_iter().chain(self.positions.iter().flat_map(|p| [p.global, p.rows, p.cols])).collect();
        // Rows of half the channels: a row of the tokens is two.
        let own = usize::from(self.global.is_some());
        let mut map = RowMapBuilder::new(self.dim / 2, &vec![1; tables.len()]);
        for s in grids.segments() {
            for half in 0..2 * self.globals {
                let all = [(0, half, 1.0), (own, half, 1.0)];
                map.row(&all[..tables.len().min(2)]);
            }
            let tokens = s.tokens_per_image();
            if self.positions.is_none() {
                (0..2 * tokens).for_each(|_| map.row(&[]));
                continue;
            }
            let (rows, cols) = self.resampling(tokens, s.height, s.width);
            for t in 0..tokens {
                for (cubic, table, at) in [(&rows, own + 1, t / s.width), (&cols, own + 2, t % s.width)] {
                    let taps: Vec<_> = cubic.taps(at).map(|(i, w)| (table, i, w)).collect();
                    let gradient: Vec<_> = cubic.gradient_taps(at).into_iter().map(|(i, w)| (table, i, w)).collect();
                    map.row_with_gradient(&taps, &gradient);
                }
            }
        }
        let shape = [map.rows() * (self.dim / 2) / self.dim, self.dim];
        Ok(Some(g.apply1(map.finish(&shape), &tables)?))
    }

    /// From the nominal grid to one of `height × width`. Each axis is resampled alone: the weights of the other sum to 1. The original counts
    /// the global tokens when it compares and when it computes the factor, so with one it resamples the nominal size as well.
    fn resampling(&self, tokens: usize, height: usize, width: usize) -> (Cubic, Cubic) {
        let grown = ((tokens + self.globals) as f64 / tokens as f64).sqrt();
        let factor = |to: usize| match height == width {
            true => ((tokens + self.globals) as f64 / (self.side * self.side) as f64).sqrt(),
            false => to as f64 / self.side as f64 * grown,
        };
        (Cubic::new(self.side, height, factor(height)), Cubic::new(self.side, width, factor(width)))
    }
}
