//! Keys that each query sees: groups of queries with the same keys, computed once, when the program is built.

use crate::Layout;

/// A key that is zero, and whose value is zero: padding that takes part.
pub(super) const PADDING: u32 = u32::MAX;

/// Queries of an image that share their keys. Rows count from the image's first.
#[derive(Clone, Debug, Default)]
pub(super) struct QueryGroup {
    pub queries: Vec<u32>,
    /// Slot of the bias for each query: see `key_slots`.
    pub query_slots: Vec<u32>,
    pub keys: Vec<u32>,
    /// Row of the bias for each key: absolute for the first `absolute` keys, added to the query's slot for the others. All
    /// keys of one query have different rows.
    pub key_slots: Vec<u32>,
    pub absolute: usize,
}

impl QueryGroup {
    /// Row of the bias of a pair.
    pub fn slot(&self, query: usize, key: usize) -> usize {
        let base = if key < self.absolute { 0 } else { self.query_slots[query] };
        (base + self.key_slots[key]) as usize
    }
}

/// Queries and keys of the images of one segment.
#[derive(Clone, Debug)]
pub(super) struct AttentionGrid {
    pub images: usize,
    /// Rows of an image in the queries, and in the keys.
    pub query_rows: usize,
    pub key_rows: usize,
    pub first_query: usize,
    pub first_key: usize,
    /// Groups of an image; where there are several variants, one is drawn at run time.
    pub variants: Vec<Vec<QueryGroup>>,
}

/// Queries and keys of all segments.
#[derive(Clone, Debug)]
pub(super) struct AttentionGeometry {
    pub grids: Vec<AttentionGrid>,
    /// Rows of the bias; 0 for none.
    pub bias_rows: usize,
}

impl AttentionGeometry {
    /// A geometry where `rows(segment)` gives rows of queries and keys of an image, and `variants(segment)` its groups.
    pub fn new(
        layout: &Layout,
        bias_rows: usize,
        rows: impl Fn(usize) -> (usize, usize),
        mut variants: impl FnMut(usize) -> Vec<Vec<QueryGroup>>,
    ) -> AttentionGeometry {
        let (mut first_query, mut first_key) = (0, 0);
        let grids = layout.segments().iter().enumerate().map(|(n, s)| {
            let (query_rows, key_rows) = rows(n);
            let grid = AttentionGrid { images: s.images, query_rows, key_rows, first_query, first_key, variants: variants(n) };
            first_query += s.images * query_rows;
            first_key += s.images * key_rows;
            grid
        });
        let grids = grids.collect();
        AttentionGeometry { grids, bias_rows }
    }

    /// Geometry of full attention: every token of an image sees every one. With `bias`, pair (i, j) of segment s has row `Σ T² of the
    /// segments before + i·T + j`.
    pub fn full(layout: &Layout, bias: bool) -> AttentionGeometry {
        let tokens: Vec<usize> = layout.segments().iter().map(|s| s.tokens_per_image()).collect();
        let squares = |n: usize| tokens[..n].iter().map(|t| t * t).sum::<usize>();
        let bias_rows = if bias { squares(tokens.len()) } else { 0 };
        AttentionGeometry::new(
            layout,
            bias_rows,
            |n| (tokens[n], tokens[n]),
            |n| {
                let all = || (0..tokens[n] as u32).collect::<Vec<_>>();
                let query_slots = all().iter().map(|i| (squares(n) + *i as usize * tokens[n]) as u32).collect();
                vec![vec![QueryGroup { queries: all(), query_slots, keys: all(), key_slots: all(), absolute: 0 }]]
            },
        )
    }

    /// Rows of all queries.
    pub fn queries(&self) -> usize {
        self.grids.iter().map(|g| g.images * g.query_rows).sum()
    }

    /// Rows of all keys.
    pub fn keys(&self) -> usize {
        self.grids.iter().map(|g| g.images * g.key_rows).sum()
    }

    /// Images of all segments.
    pub fn images(&self) -> usize {
        self.grids.iter().map(|g| g.images).sum()
    }

    /// Whether the groups are chosen at run time.
    pub fn is_drawn(&self) -> bool {
        self.grids.iter().any(|g| g.variants.len() > 1)
    }

    /// Whether every query has visible keys, whatever is drawn.
    pub fn is_complete(&self) -> bool {
        let covers =
            |grid: &AttentionGrid| grid.variants.iter().all(|v| v.iter().map(|g| g.queries.len()).sum::<usize>() == grid.query_rows);
        self.grids.iter().all(covers)
    }

    /// Segment and number within it of an image, its first query and key, and its groups under these draws.
    pub fn image(&self, mut n: usize, draws: Option<&[u32]>) -> ImageGroups<'_> {
        for (s, grid) in self.grids.iter().enumerate() {
            if n < grid.images {
                let variant = draws.map_or(0, |d| d[s] as usize).min(grid.variants.len() - 1);
                return ImageGroups {
                    grid,
                    first_query: grid.first_query + n * grid.query_rows,
                    first_key: grid.first_key + n * grid.key_rows,
                    groups: &grid.variants[variant],
                };
            }
            n -= grid.images;
        }
        unreachable!("image {n} of a geometry with {}", self.images())
    }

    /// Maximum of `of` over all groups.
    pub fn most(&self, of: impl Fn(&QueryGroup) -> usize) -> usize {
        self.grids.iter().flat_map(|g| g.variants.iter().flatten()).map(of).max().unwrap_or(0)
    }

    /// Pairs of queries and keys over all images, for one head; with one neighbor where neighbors are drawn.
    pub fn pairs(&self) -> u64 {
        let image = |g: &AttentionGrid| {
            g.variants.last().into_iter().flatten().map(|group| (group.queries.len() * group.keys.len()) as u64).sum::<u64>()
        };
        self.grids.iter().map(|g| g.images as u64 * image(g)).sum()
    }
}

/// Queries, keys and groups of one image.
#[derive(Clone, Copy)]
pub(super) struct ImageGroups<'g> {
    pub grid: &'g AttentionGrid,
    pub first_query: usize,
    pub first_key: usize,
    pub groups: &'g [QueryGroup],
}
