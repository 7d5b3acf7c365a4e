//! Cases of attention.

use super::{Attention, Border, ImageAttentionMap, Neighbors, SlidingWindows};
use crate::Input::{Index, Wave};
use crate::{Case, Layout, Segment};

fn layout(segments: &[(usize, usize, usize)]) -> Layout {
    Layout::new(segments.iter().map(|&(images, height, width)| Segment { images, height, width }).collect::<Vec<_>>())
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    let full = |why, segments: &[(usize, usize, usize)], c: usize, heads: usize, bias: bool| {
        let layout = layout(segments);
        let op = Attention::full(&layout, heads, bias);
        let mut inputs = vec![Wave(vec![layout.tokens(), 3 * c])];
        if bias {
            inputs.push(Wave(vec![op.geometry.bias_rows, heads]));
        }
        Case::new(why, op, inputs)
    };
    let base = SlidingWindows {
        layout: layout(&[(2, 5, 4), (1, 2, 2)]),
        globals: 1,
        window: 2,
        neighbors: Neighbors::All,
        border: Border::Open,
        local_queries: true,
        global_queries: true,
        pooled: false,
    };
    let sliding = |why, windows: SlidingWindows, c: usize, heads: usize, bias: bool| {
        let op = Attention::sliding(&windows, heads, bias);
        let mut inputs = vec![Wave(vec![op.geometry.queries(), c]), Wave(vec![op.geometry.keys(), 2 * c])];
        if bias {
            inputs.push(Wave(vec![op.geometry.bias_rows, heads]));
        }
        if op.geometry.is_drawn() {
            inputs.push(Index(vec![op.geometry.grids.len()], 9));
        }
        Case::new(why, op, inputs)
    };
    let with = |change: &dyn Fn(&mut SlidingWindows)| {
        let mut windows = base.clone();
        change(&mut windows);
        windows
    };
    vec![
        full("two sizes, no bias", &[(2, 2, 3), (1, 1, 2)], 8, 2, false),
        full("two sizes, a bias for every pair", &[(1, 2, 3), (2, 1, 3)], 12, 3, true),
        full("more queries than a block, odd channels", &[(1, 9, 9)], 5, 1, false),
        full("heads wider than a workgroup", &[(1, 2, 3)], 140, 2, true),
        sliding("all neighbors, padding, a global token, a bias", base.clone(), 8, 2, true),
        sliding("no bias", base.clone(), 6, 1, false),
        sliding("no neighbor", with(&|w| w.neighbors = Neighbors::Own), 8, 2, true),
        sliding("a drawn neighbor for each segment", with(&|w| w.neighbors = Neighbors::Drawn), 8, 2, true),
        sliding("cyclic: padding that takes part", with(&|w| w.border = Border::Cyclic), 8, 2, true),
        sliding("exact distances", with(&|w| w.border = Border::Exact), 8, 2, true),
        sliding("global tokens alone", with(&|w| w.neighbors = Neighbors::Global), 8, 2, true),
        sliding("local queries only: zeros for the global ones", with(&|w| w.global_queries = false), 8, 2, true),
        sliding("global queries only, two of them", with(&|w| (w.local_queries, w.globals) = (false, 2)), 8, 2, true),
        sliding("no global token", with(&|w| (w.globals, w.global_queries) = (0, false)), 8, 2, true),
        sliding("pooled keys behind the tokens", with(&|w| w.pooled = true), 8, 2, true),
        {
            let op = Attention::full(&layout(&[(2, 2, 3)]), 2, true);
            let inputs = vec![Wave(vec![12, 24]), Wave(vec![36, 2])];
            Case::new("the maps themselves", ImageAttentionMap(op), inputs).differentiate(&[])
        },
        {
            let op = Attention::sliding(&base, 2, true);
            let inputs =
                vec![Wave(vec![op.geometry.queries(), 8]), Wave(vec![op.geometry.keys(), 16]), Wave(vec![op.geometry.bias_rows, 2])];
            Case::new("maps of windows, of two sizes", ImageAttentionMap(op), inputs).differentiate(&[])
        },
    ]
}
