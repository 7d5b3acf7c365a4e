//! Images of a training run: encoded bytes in, crops of 8-bit RGB out.
//!
//! - [`decode()`] and [`info`]: JPEG, PNG, WebP, GIF, BMP and TIFF, as Pillow's `convert("RGB")`
//!   reads them
//! - [`CropPlan`], [`render`], [`render_into`], [`render_all`]: Pillow's resampling and color operations, bit for bit, driven by plain
//!   numbers; the transform for evaluation is a plan with a [`CropWindow`]
//! - [`color`]: Pillow's and torchvision's color operations alone
//! - [`encode_png`]: the way out, for figures
//!
//! Everything is a function of its arguments: no threads, no globals, no randomness. Pixels are
//! `u8`, interleaved RGB, row-major, `[height, width, 3]`. What fails returns an [`ImageError`]; foreign
//! bytes cannot make it panic or allocate more than [`Limits`] allows.

#![expect(clippy::needless_range_loop, reason = "loops over lanes need their constant bounds, see dispatch.rs")]

pub mod color;
mod decode;
mod dispatch;
mod error;
mod jpeg;
mod limits;
mod plan;
mod png;
mod raster;
mod resample;

pub use decode::{decode, info};
pub use error::ImageError;
pub use limits::{ImageInfo, Limits, MAX_PIXELS};
pub use plan::{CropPlan, CropWindow, MAX_BLUR_RADIUS, MAX_SIDE, PixelOperation, render, render_all, render_into};
pub use png::encode_png;
pub use raster::RgbImage;
pub use resample::ResampleFilter;
