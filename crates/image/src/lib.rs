//! Images of a training run: encoded bytes in, crops of 8-bit RGB out.
//!
//! - [`decode()`] and [`info`]: JPEG, PNG, WebP, GIF, BMP and TIFF, as Pillow's `convert("RGB")`
//!   reads them
//! - [`resized_crop`], [`resize_shorter_side_then_center_crop`]: Pillow's resampling, bit for bit
//! - [`color`]: Pillow's and torchvision's color operations, bit for bit
//! - [`CropPlan`], [`render`], [`render_all`]: all of it, driven by plain numbers; [`EvalPlan`] and
//!   [`render_eval`]: the transform for evaluation
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
mod plan;
mod png;
mod raster;
mod resample;

pub use decode::{ImageInfo, Limits, MAX_PIXELS, decode, info};
pub use error::ImageError;
pub use plan::{CropPlan, EvalPlan, MAX_BLUR_RADIUS, MAX_SIDE, PixelOperation, render, render_all, render_eval};
pub use png::encode_png;
pub use raster::RgbImage;
pub use resample::{Filter, Region, resize_shorter_side_then_center_crop, resized_crop};
