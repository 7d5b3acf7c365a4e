//! Tokens and masks of every window: computed once, when the program is built.

use super::bias::{BiasPanels, line};
use crate::Layout;

/// Token of a window that is padding.
pub(super) const PADDING: u32 = u32::MAX;
/// Value that microsoft/esvit adds to scores between regions of a shifted grid.
pub(super) const MASK: f32 = -100.0;

/// Windows of one image of a segment.
#[derive(Debug)]
pub(super) struct WindowGrid {
    pub images: usize,
    pub height: usize,
    pub width: usize,
    /// First token of the segment.
    pub first_token: usize,
    pub tokens_per_image: usize,
    pub windows: usize,
    /// `[windows, T]`: token within the image, or [`PADDING`].
    pub index: Vec<u32>,
    /// `[windows, T]`: region of the shifted, padded grid; pairs of different regions are masked.
    pub region: Vec<u8>,
    /// First float of a window's masks in [`WindowGeometry::masks`], if it has more than one region.
    masks: Vec<Option<usize>>,
}

/// Windows of all segments.
#[derive(Debug)]
pub(super) struct WindowGeometry {
    /// w: side of a window.
    pub window: usize,
    /// Tokens that the grid moves by, along each axis, before it is cut into windows.
    pub roll: usize,
    /// Distance from the end of each axis where the regions are cut; 0 for one region.
    pub shift: usize,
    /// 2w − 1 of the bias table: its windows may be larger than these.
    pub span: usize,
    /// Factor of the scores; 1/√D where none is given.
    pub scale: Option<f32>,
    /// T = window².
    pub area: usize,
    /// N: all tokens.
    pub tokens: usize,
    pub grids: Vec<WindowGrid>,
    /// `[T, T]`: row of the bias table for each pair.
    pub relative: Vec<u32>,
    /// `[regions, line]` for each kind of window with more than one region: 1 where a query is in another one than the keys.
    pub masks: Vec<f32>,
    /// Layout of the biases in the fast version.
    pub panels: BiasPanels,
}

/// Tokens of one window of one image.
#[derive(Clone, Copy)]
pub(super) struct WindowTokens<'g> {
    /// Row of the image's first token.
    pub first_token: usize,
    pub index: &'g [u32],
    pub region: &'g [u8],
    /// `[regions, line]`: number of [`MASK`]s that the scores with keys of each region get; nothing where all keys are in one
    /// region.
    pub masks: Option<&'g [f32]>,
}

/// Regions at most.
const REGIONS: usize = 9;

impl WindowGeometry {
    /// Windows of a grid shifted by `shift`; with `roll` 0 its regions are masked though nothing moves.
    pub fn new(layout: &Layout, window: usize, shift: usize, roll: usize, table_window: usize) -> WindowGeometry {
        let area = window * window;
        let mut first_token = 0;
        let (mut masks, mut kinds) = (Vec::new(), Vec::<Vec<u8>>::new());
        let grids = layout.segments().iter().map(|s| {
            let (padded_h, padded_w) = (s.height.next_multiple_of(window), s.width.next_multiple_of(window));
            let (rows, cols) = (padded_h / window, padded_w / window);
            let mut grid = WindowGrid {
                images: s.images,
                height: s.height,
                width: s.width,
                first_token,
                tokens_per_image: s.tokens_per_image(),
                windows: rows * cols,
                index: Vec::with_capacity(rows * cols * area),
                region: Vec::with_capacity(rows * cols * area),
                masks: Vec::with_capacity(rows * cols),
            };
            // The original cuts each axis at −window and −shift; the last part wraps around.
            let axis_region = |at: usize, side: usize| match () {
                _ if shift == 0 || at < side - window => 0u8,
                _ if at < side - shift => 1,
                _ => 2,
            };
            for w in 0..rows * cols {
                for t in 0..area {
                    let (r, c) = (w / cols * window + t / window, w % cols * window + t % window);
                    let (from_r, from_c) = ((r + roll) % padded_h, (c + roll) % padded_w);
                    let inside = from_r < s.height && from_c < s.width;
                    grid.index.push(if inside { (from_r * s.width + from_c) as u32 } else { PADDING });
                    grid.region.push(axis_region(r, padded_h) * 3 + axis_region(c, padded_w));
                }
                let regions = &grid.region[w * area..];
                let mixed = regions.iter().any(|&r| r != regions[0]);
                grid.masks.push(mixed.then(|| {
                    let kind = kinds.iter().position(|kind| kind == regions).unwrap_or_else(|| {
                        masks.extend(expand_masks(regions));
                        kinds.push(regions.to_vec());
                        kinds.len() - 1
                    });
                    kind * REGIONS * line(area)
                }));
            }
            first_token += s.tokens();
            grid
        });
        let grids = grids.collect::<Vec<_>>();
        let span = 2 * table_window - 1;
        let relative = (0..area * area).map(|p| {
            let (i, j) = (p / area, p % area);
            let dr = i / window + table_window - 1 - j / window;
            let dc = i % window + table_window - 1 - j % window;
            (dr * span + dc) as u32
        });
        WindowGeometry {
            window,
            roll,
            shift,
            span,
            scale: None,
            area,
            tokens: layout.tokens(),
            grids,
            relative: relative.collect(),
            masks,
            panels: BiasPanels::new(window, span),
        }
    }

    /// Rows of the bias table.
    pub fn table_rows(&self) -> usize {
        self.span.pow(2)
    }

    /// Factor of the scores of heads with `d` channels.
    pub fn scale(&self, d: usize) -> f32 {
        self.scale.unwrap_or(1.0 / (d as f32).sqrt())
    }

    /// Windows of all images.
    pub fn windows(&self) -> usize {
        self.grids.iter().map(|g| g.images * g.windows).sum()
    }

    /// Pairs of tokens over all windows, for one head.
    pub fn pairs(&self) -> u64 {
        (self.windows() * self.area * self.area) as u64
    }

    /// Window number `n`, counted over grids, images, then windows.
    pub fn window(&self, mut n: usize) -> WindowTokens<'_> {
        for grid in &self.grids {
            if n < grid.images * grid.windows {
                let (image, w) = (n / grid.windows, n % grid.windows);
                let tokens = w * self.area..(w + 1) * self.area;
                return WindowTokens {
                    first_token: grid.first_token + image * grid.tokens_per_image,
                    index: &grid.index[tokens.clone()],
                    region: &grid.region[tokens],
                    masks: grid.masks[w].map(|at| &self.masks[at..at + REGIONS * line(self.area)]),
                };
            }
            n -= grid.images * grid.windows;
        }
        unreachable!("window {n} of a geometry with {}", self.windows())
    }
}

/// Masks of one kind of window: `[regions, line]`.
fn expand_masks(regions: &[u8]) -> impl Iterator<Item = f32> {
    let padding = line(regions.len()) - regions.len();
    (0..REGIONS).flat_map(move |keys| {
        let row = regions.iter().map(move |&query| if usize::from(query) == keys { 0.0 } else { 1.0 });
        row.chain(std::iter::repeat_n(0.0, padding))
    })
}
