//! Where the tokens of every window lie: computed once, when the program is built.

use crate::Layout;

/// A token of a window that is padding.
pub(super) const PADDING: u32 = u32::MAX;

/// One grid size: the windows of one of its images.
#[derive(Debug)]
pub(super) struct Grid {
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
    /// Whether a window holds more than one region.
    pub mixed: Vec<bool>,
}

#[derive(Debug)]
pub(super) struct Geometry {
    pub window: usize,
    /// How far the grid moves before it is cut into windows.
    pub roll: usize,
    /// Where the regions are cut; 0 for one region.
    pub shift: usize,
    /// 2w − 1 of the bias table: its windows may be larger than these.
    pub span: usize,
    /// Factor of the scores; 1/√D where none is given.
    pub scale: Option<f32>,
    /// T = window².
    pub area: usize,
    /// N: all tokens.
    pub tokens: usize,
    pub grids: Vec<Grid>,
    /// `[T, T]`: row of the bias table for each pair.
    pub relative: Vec<u32>,
}

/// One window of one image.
#[derive(Clone, Copy)]
pub(super) struct Window<'g> {
    /// Row of the image's first token.
    pub first_token: usize,
    pub index: &'g [u32],
    pub region: &'g [u8],
    pub mixed: bool,
}

impl Geometry {
    /// Windows of a grid shifted by `shift`; with `roll` 0 its regions are masked though nothing moves.
    pub fn new(layout: &Layout, window: usize, shift: usize, roll: usize, table_window: usize) -> Geometry {
        let area = window * window;
        let mut first_token = 0;
        let grids = layout.segments().iter().map(|s| {
            let (padded_h, padded_w) = (s.height.next_multiple_of(window), s.width.next_multiple_of(window));
            let (rows, cols) = (padded_h / window, padded_w / window);
            let mut grid = Grid {
                images: s.images,
                height: s.height,
                width: s.width,
                first_token,
                tokens_per_image: s.tokens_per_image(),
                windows: rows * cols,
                index: Vec::with_capacity(rows * cols * area),
                region: Vec::with_capacity(rows * cols * area),
                mixed: Vec::with_capacity(rows * cols),
            };
            // The reference cuts each axis at −window and −shift; the last strip wraps around.
            let strip = |at: usize, side: usize| match () {
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
                    grid.region.push(strip(r, padded_h) * 3 + strip(c, padded_w));
                }
                let regions = &grid.region[w * area..];
                grid.mixed.push(regions.iter().any(|&r| r != regions[0]));
            }
            first_token += s.tokens();
            grid
        });
        let grids = grids.collect();
        let span = 2 * table_window - 1;
        let relative = (0..area * area).map(|p| {
            let (i, j) = (p / area, p % area);
            let dr = i / window + table_window - 1 - j / window;
            let dc = i % window + table_window - 1 - j % window;
            (dr * span + dc) as u32
        });
        Geometry { window, roll, shift, span, scale: None, area, tokens: layout.tokens(), grids, relative: relative.collect() }
    }

    /// Rows of the bias table for key `j`, query by query.
    pub fn relative_to(&self, j: usize) -> impl Iterator<Item = usize> + '_ {
        // Both axes turn round when query and key change places.
        let last = self.table_rows() - 1;
        self.relative[j * self.area..][..self.area].iter().map(move |&r| last - r as usize)
    }

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
    pub fn window(&self, mut n: usize) -> Window<'_> {
        for grid in &self.grids {
            if n < grid.images * grid.windows {
                let (image, w) = (n / grid.windows, n % grid.windows);
                let tokens = w * self.area..(w + 1) * self.area;
                return Window {
                    first_token: grid.first_token + image * grid.tokens_per_image,
                    index: &grid.index[tokens.clone()],
                    region: &grid.region[tokens],
                    mixed: grid.mixed[w],
                };
            }
            n -= grid.images * grid.windows;
        }
        unreachable!("window {n} of a geometry with {}", self.windows())
    }
}
