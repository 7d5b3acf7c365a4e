//! Attention of a block with its biases, and the gate behind it.

use esvit_graph::{Graph, Result, Value};
use esvit_ops::attention::{self as op, Border, ImageAttentionMap, Neighbors, SlidingWindows};
use esvit_ops::channel_gate::ChannelGate;
use esvit_ops::gather_rows::GatherRows;
use esvit_ops::pool_windows::PoolWindows;
use esvit_ops::relu::RELU;
use esvit_ops::residual::Residual;
use esvit_ops::row_map::{Cubic, RowMapBuilder};
use esvit_ops::token_mean::TokenMean;
use esvit_ops::{Layout, Segment};

use crate::layers::{INIT_STD, LinearLayer};
use crate::parameters::alias_linear;
use crate::spec::{VilBorder, VilGate, VilNeighbors, VilPool, VilSpec, VilStage};
use crate::{Init, Scope};

pub(super) struct VilAttention {
    heads: usize,
    globals: usize,
    /// Side of the nominal grid.
    side: usize,
    bias: Option<VilBias>,
    kind: VilAttentionKind,
}

/// Relative position biases, of the original's shapes.
struct VilBias {
    /// `[(2·side − 1)², H]`, or `[(4w − 1)², H]` for windows.
    local: Value,
    /// `[2, H, globals]`: global query to local key, local query to global key.
    between: Option<Value>,
    /// `[H, globals, globals]`.
    global: Option<Value>,
    /// `[(2m − 1)², H]` among m × m windows.
    pooled: Option<Value>,
}

enum VilAttentionKind {
    Full { qkv: LinearLayer, proj: LinearLayer },
    Sliding { windows: Windows, local: Projections, global: Option<Projections>, pool: Option<PooledKeys> },
}

#[derive(Clone, Copy)]
struct Windows {
    window: usize,
    border: Border,
    neighbors: VilNeighbors,
    only_global: bool,
}

struct Projections {
    query: LinearLayer,
    kv: LinearLayer,
    proj: LinearLayer,
}

struct PooledKeys {
    key_scale: Value,
    value_scale: Value,
    /// Weight of each token of a window, and a bias; their mean without.
    learned: Option<(Value, Value)>,
}

impl VilAttention {
    pub fn new(g: &mut Graph, scope: &mut Scope, spec: &VilSpec, stage: &VilStage, side: usize, sparse: bool) -> Result<VilAttention> {
        let VilStage { heads, dim, globals, window, pooled, .. } = *stage;
        let init = Init::Normal(INIT_STD);
        let span = if sparse { 4 * window - 1 } else { 2 * side - 1 };
        let mut bias = match stage.absolute_position {
            true => None,
            false => {
                let local = scope.parameter(g, "local_relative_position_bias_table", &[span * span, heads], init)?;
                let (mut between, mut global) = (None, None);
                if globals > 0 {
                    between = Some(scope.parameter(g, "g2l_relative_position_bias", &[2, heads, globals], init)?);
                    global = Some(scope.parameter(g, "g2g_relative_position_bias", &[heads, globals, globals], init)?);
                }
                Some(VilBias { local, between, global, pooled: None })
            }
        };
        let windows_side = side / window;
        let mut scales = None;
        if pooled {
            let key_scale = scope.parameter(g, "pooled_k_scale", &[1, heads], Init::Constant(1.0))?;
            let value_scale = scope.parameter(g, "pooled_q_scale", &[1, heads], Init::Constant(1.0))?;
            let rows = (2 * windows_side - 1).pow(2);
            let table = scope.parameter(g, "relative_position_bias_table_xwin", &[rows, heads], init)?;
            bias.iter_mut().for_each(|b| b.pooled = Some(table));
            scales = Some((key_scale, value_scale));
        }
        if bias.is_some() {
            match sparse {
                true => scope.constant("relative_position_index", &[window * window, 9 * window * window], window_index(window)),
                false => scope.constant("relative_position_index", &[side * side; 2], grid_index(side)),
            }
        }
        if pooled {
            scope.constant("relative_position_index_xwin", &[windows_side * windows_side; 2], grid_index(windows_side));
        }
        let kind = match sparse {
            false => VilAttentionKind::Full {
                qkv: LinearLayer::new(g, &mut scope.child("qkv"), dim, 3 * dim, true)?,
                proj: LinearLayer::new(g, &mut scope.child("proj"), dim, dim, true)?,
            },
            true => {
                let local = Projections::new(g, scope, dim, "")?;
                let mut global = None;
                if globals > 0 && spec.share_weights {
                    for (name, of, output) in [("query_global", "query", dim), ("kv_global", "kv", 2 * dim), ("proj_global", "proj", dim)] {
                        alias_linear(scope, name, of, dim, output, true);
                    }
                } else if globals > 0 {
                    global = Some(Projections::new(g, scope, dim, "_global")?);
                }
                let pool = match scales {
                    None => None,
                    Some((key_scale, value_scale)) => {
                        let learned = match spec.pool {
                            VilPool::Mean => None,
                            VilPool::Learned => {
                                let mut scope = scope.child("pool_fc");
                                let weight = scope.parameter(g, "weight", &[1, window * window], init)?;
                                Some((weight, scope.parameter(g, "bias", &[1], Init::Constant(0.0))?))
                            }
                        };
                        Some(PooledKeys { key_scale, value_scale, learned })
                    }
                };
                let border = match spec.border {
                    VilBorder::Open => Border::Open,
                    VilBorder::Cyclic => Border::Cyclic,
                    VilBorder::Exact => Border::Exact,
                };
                let windows = Windows { window, border, neighbors: spec.neighbors, only_global: spec.only_global };
                VilAttentionKind::Sliding { windows, local, global, pool }
            }
        };
        Ok(VilAttention { heads, globals, side, bias, kind })
    }

    /// Whether its neighbors are sampled in training.
    pub fn samples_neighbors(&self) -> bool {
        matches!(&self.kind, VilAttentionKind::Sliding { windows, .. } if windows.neighbors == VilNeighbors::Drawn && !windows.only_global)
    }

    /// The attention's output and its map. `layout` is that of the grids with the global tokens in front.
    pub fn forward(&self, g: &mut Graph, x: Value, grids: &Layout, layout: &Layout, draw: Option<Value>) -> Result<(Value, Value)> {
        match &self.kind {
            VilAttentionKind::Full { qkv, proj } => {
                let mut operands = vec![qkv.forward(g, x)?];
                operands.extend(self.full_bias(g, grids)?);
                let attention = op::Attention::full(layout, self.heads, operands.len() == 2);
                let map = g.apply1(ImageAttentionMap(attention.clone()), &operands)?;
                let y = g.apply(attention, &operands)?[0];
                Ok((proj.forward(g, y)?, map))
            }
            VilAttentionKind::Sliding { windows, local, global, pool } => {
                let neighbors = match (windows.only_global, windows.neighbors, draw) {
                    (true, ..) => Neighbors::Global,
                    (_, VilNeighbors::None, _) => Neighbors::Own,
                    (_, VilNeighbors::Drawn, Some(_)) => Neighbors::Drawn,
                    _ => Neighbors::All,
                };
                let mut sliding = SlidingWindows {
                    layout: grids.clone(),
                    globals: self.globals,
                    window: windows.window,
                    neighbors,
                    border: windows.border,
                    local_queries: true,
                    global_queries: global.is_none() && self.globals > 0,
                    pooled: pool.is_some(),
                };
                let bias = self.sliding_bias(g, &sliding)?;
                let query = local.query.forward(g, x)?;
                let mut kv = local.kv.forward(g, x)?;
                if let Some(pool) = pool {
                    kv = self.pooled(g, pool, kv, grids, windows.window)?;
                }
                let mut operands = vec![query, kv];
                operands.extend(bias);
                operands.extend(draw.filter(|_| neighbors == Neighbors::Drawn));
                let attention = op::Attention::sliding(&sliding, self.heads, bias.is_some());
                let map = g.apply1(ImageAttentionMap(attention.clone()), &operands)?;
                let y = g.apply(attention, &operands)?[0];
                let Some(global) = global else { return Ok((local.proj.forward(g, y)?, map)) };

                // Global tokens with projections of their own.
                (sliding.local_queries, sliding.global_queries, sliding.pooled) = (false, true, false);
                sliding.neighbors = Neighbors::All;
                let first = g.apply1(GatherRows::head(layout, self.globals), &[x])?;
                let query = global.query.forward(g, first)?;
                let heads_only = layout.map(|_, _| (1, self.globals));
                let behind: Vec<usize> = grids.segments().iter().map(Segment::tokens_per_image).collect();
                let query = spread(g, query, &heads_only, 0, &behind)?;
                let mut operands = vec![query, global.kv.forward(g, x)?];
                operands.extend(self.sliding_bias(g, &sliding)?);
                let y_global = g.apply(op::Attention::sliding(&sliding, self.heads, operands.len() == 3), &operands)?[0];
                let y_global = g.apply1(GatherRows::head(layout, self.globals), &[y_global])?;
                let y_global = global.proj.forward(g, y_global)?;
                let y_global = spread(g, y_global, &heads_only, 0, &behind)?;
                let y_local = g.apply1(GatherRows::tail(layout, self.globals), &[y])?;
                let y_local = local.proj.forward(g, y_local)?;
                let y_local = g.apply1(GatherRows::padded(grids, self.globals, 0), &[y_local])?;
                Ok((g.apply1(Residual { layout: layout.clone() }, &[y_local, y_global])?, map))
            }
        }
    }

    fn pooled(&self, g: &mut Graph, pool: &PooledKeys, kv: Value, grids: &Layout, window: usize) -> Result<Value> {
        let mut operands = vec![kv, pool.key_scale, pool.value_scale];
        operands.extend(pool.learned.iter().flat_map(|&(weight, bias)| [weight, bias]));
        g.apply1(PoolWindows { layout: grids.clone(), globals: self.globals, window, heads: self.heads }, &operands)
    }

    fn tables(&self, bias: &VilBias) -> (Vec<Value>, Vec<usize>) {
        let mut tables = vec![bias.local];
        let mut inner = vec![1];
        for (table, size) in [(bias.between, self.globals), (bias.global, self.globals * self.globals), (bias.pooled, 1)] {
            if let Some(table) = table {
                tables.push(table);
                inner.push(size);
            }
        }
        (tables, inner)
    }

    /// Bias of all pairs of every segment, `[Σ T², H]`. The pairs of patches of another grid than the nominal one are an image that is
    /// resampled, pairs of rows with pairs of columns, as in the original.
    fn full_bias(&self, g: &mut Graph, grids: &Layout) -> Result<Option<Value>> {
        let Some(bias) = &self.bias else { return Ok(None) };
        let (tables, inner) = self.tables(bias);
        let mut map = RowMapBuilder::new(self.heads, &inner);
        let (side, globals) = (self.side, self.globals);
        let patches = side * side;
        let offset = |i: usize, j: usize| {
            let (dr, dc) = (i / side + side - 1 - j / side, i % side + side - 1 - j % side);
            dr * (2 * side - 1) + dc
        };
        for s in grids.segments() {
            let tokens = s.tokens_per_image();
            let cubic = Cubic::new(patches, tokens, tokens as f64 / patches as f64);
            for i in 0..globals + tokens {
                for j in 0..globals + tokens {
                    match (i < globals, j < globals) {
                        (true, true) => map.row(&[(2, i * globals + j, 1.0)]),
                        (true, false) => map.row(&[(1, i, 1.0)]),
                        (false, true) => map.row(&[(1, globals + j, 1.0)]),
                        (false, false) => {
                            let taps = |(a, wa): (usize, f32)| cubic.taps(j - globals).map(move |(b, wb)| (0, offset(a, b), wa * wb));
                            map.row(&cubic.taps(i - globals).flat_map(taps).collect::<Vec<_>>());
                        }
                    }
                }
            }
        }
        let shape = [map.rows(), self.heads];
        Ok(Some(g.apply1(map.finish(&shape), &tables)?))
    }

    /// Bias of the slots of sliding windows. The original's table counts query minus key, the slots key minus query. Global keys alone have
    /// none.
    fn sliding_bias(&self, g: &mut Graph, sliding: &SlidingWindows) -> Result<Option<Value>> {
        let Some(bias) = &self.bias else { return Ok(None) };
        let (tables, inner) = self.tables(bias);
        let globals = self.globals;
        let mut map = RowMapBuilder::new(self.heads, &inner);
        let offsets = sliding.offset_rows();
        (0..offsets).for_each(|row| map.row(&[(0, offsets - 1 - row, 1.0)]));
        for j in 0..globals {
            let seen = [(1, globals + j, 1.0)];
            map.row(if sliding.neighbors == Neighbors::Global { &[] } else { &seen });
        }
        if sliding.pooled {
            let side = self.side / sliding.window;
            let index = grid_index(side);
            for s in grids_of(sliding) {
                if (s.height / sliding.window, s.width / sliding.window) != (side, side)
                    || s.height % sliding.window + s.width % sliding.window > 0
                {
                    let what = format!("pooled keys need the nominal grid of {0} x {0}, got {1} x {2}", self.side, s.height, s.width);
                    return Err(esvit_graph::Error::Attribute { op: "vil", what });
                }
                index.iter().for_each(|&row| map.row(&[(tables.len() - 1, row as usize, 1.0)]));
            }
        }
        for s in grids_of(sliding) {
            for i in 0..globals {
                for j in 0..globals + s.tokens_per_image() {
                    map.row(&[if j < globals { (2, i * globals + j, 1.0) } else { (1, i, 1.0) }]);
                }
            }
        }
        let shape = [map.rows(), self.heads];
        Ok(Some(g.apply1(map.finish(&shape), &tables)?))
    }
}

fn grids_of(sliding: &SlidingWindows) -> &[Segment] {
    sliding.layout.segments()
}

/// Rows of zeros before and behind the tokens of every image, a number behind for each segment.
fn spread(g: &mut Graph, x: Value, layout: &Layout, before: usize, behind: &[usize]) -> Result<Value> {
    g.apply1(GatherRows::surrounded(layout, before, behind), &[x])
}

impl Projections {
    fn new(g: &mut Graph, scope: &mut Scope, dim: usize, suffix: &str) -> Result<Projections> {
        Ok(Projections {
            query: LinearLayer::new(g, &mut scope.child(&format!("query{suffix}")), dim, dim, true)?,
            kv: LinearLayer::new(g, &mut scope.child(&format!("kv{suffix}")), dim, 2 * dim, true)?,
            proj: LinearLayer::new(g, &mut scope.child(&format!("proj{suffix}")), dim, dim, true)?,
        })
    }
}

/// The original's buffer for pairs of a grid: query minus key.
fn grid_index(side: usize) -> Vec<i64> {
    let area = side * side;
    let row = |p: usize| {
        let (i, j) = (p / area, p % area);
        let (dr, dc) = (i / side + side - 1 - j / side, i % side + side - 1 - j % side);
        (dr * (2 * side - 1) + dc) as i64
    };
    (0..area * area).map(row).collect()
}

/// The original's buffer for the tokens of a window and those of the 3 × 3 windows around.
fn window_index(w: usize) -> Vec<i64> {
    let area = w * w;
    let row = |p: usize| {
        let (i, j) = (p / (9 * area), p % (9 * area));
        let (block, k) = (j / area, j % area);
        let dr = w + i / w + 2 * w - 1 - (block / 3 * w + k / w);
        let dc = w + i % w + 2 * w - 1 - (block % 3 * w + k % w);
        (dr * (4 * w - 1) + dc) as i64
    };
    (0..9 * area * area).map(row).collect()
}

/// A gate on the channels.
pub(super) enum Gate {
    None,
    /// Down to a few channels, ReLU, up again.
    Squeeze(LinearLayer, LinearLayer),
    /// `[1, 1, k]`, and the number of channels.
    Convolution(Value, usize),
}

impl Gate {
    pub fn new(g: &mut Graph, scope: &mut Scope, spec: &VilSpec, dim: usize) -> Result<Gate> {
        let size = (dim as f64 * spec.gate_ratio) as usize;
        match spec.gate {
            VilGate::None => Ok(Gate::None),
            VilGate::Squeeze if size == 0 => {
                let what = format!("gate_ratio {} leaves none of {dim} channels", spec.gate_ratio);
                Err(esvit_graph::Error::Attribute { op: "vil", what })
            }
            VilGate::Squeeze => Ok(Gate::Squeeze(
                LinearLayer::new(g, &mut scope.child("fc.0"), dim, size, false)?,
                LinearLayer::new(g, &mut scope.child("fc.2"), size, dim, false)?,
            )),
            VilGate::Convolution => {
                let side = if size.is_multiple_of(2) { size + 1 } else { size };
                let bound = Init::Uniform(1.0 / (side as f32).sqrt());
                Ok(Gate::Convolution(scope.child("conv").parameter(g, "weight", &[1, 1, side], bound)?, dim))
            }
        }
    }

    pub fn forward(&self, g: &mut Graph, x: Value, layout: &Layout) -> Result<Value> {
        let z = match self {
            Gate::None => return Ok(x),
            Gate::Squeeze(down, up) => {
                let mean = g.apply1(TokenMean { layout: layout.clone() }, &[x])?;
                let z = down.forward(g, mean)?;
                let z = g.apply1(RELU, &[z])?;
                up.forward(g, z)?
            }
            &Gate::Convolution(kernel, dim) => {
                let mean = g.apply1(TokenMean { layout: layout.clone() }, &[x])?;
                // The convolution as a matrix: the kernel along its diagonal.
                let side: usize = g.shape(kernel).iter().product();
                let mut map = RowMapBuilder::new(1, &[1]);
                for (to, from) in (0..dim * dim).map(|i| (i / dim, i % dim)) {
                    let k = (from + side / 2).wrapping_sub(to);
                    let tap = [(0, k, 1.0)];
                    map.row(if k < side { &tap } else { &[] });
                }
                let matrix = g.apply1(map.finish(&[dim, dim]), &[kernel])?;
                g.apply1(esvit_ops::linear::Linear, &[mean, matrix])?
            }
        };
        g.apply1(ChannelGate { layout: layout.clone() }, &[x, z])
    }
}
