//! The size a header declares, and the largest one that is decoded.

use crate::error::ImageError;

/// Most pixels a picture may declare: where Pillow refuses a "decompression bomb"
/// (a quarter of a gibibyte of RGB, doubled).
pub const MAX_PIXELS: u64 = 178_956_970;

/// Bounds on what a decoder may allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels a picture may declare in its header.
    pub max_pixels: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: MAX_PIXELS }
    }
}

impl Limits {
    pub(crate) fn check(&self, format: &'static str, info: ImageInfo) -> Result<(), ImageError> {
        let ImageInfo { width, height } = info;
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(ImageError::TooLarge { format, width, height, limit: self.max_pixels });
        }
        Ok(())
    }
}

/// Size of a picture as its header declares it, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct ImageInfo {
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
}
