//! Color operations on 8-bit RGB in place, equal to Pillow's and torchvision's.
//!
//! - [`adjust`]: brightness, contrast, saturation, gray, solarize, mirror
//! - [`hue`]: a shift of the hue circle
//! - [`blur`]: Gaussian blur by three box blurs
//!
//! All take samples as `[height, width, 3]`; those for which the place of a pixel does not
//! matter take no size.

pub mod adjust;
mod block;
pub mod blur;
pub mod hue;
