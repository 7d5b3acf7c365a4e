//! The one pixel format of this crate: 8-bit RGB, interleaved, row-major, no padding.

use std::fmt;

use crate::error::ImageError;

/// Bytes in a pixel.
pub(crate) const CHANNELS: usize = 3;

/// An 8-bit RGB picture of at least 1 x 1 pixels, `[height, width, 3]`.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// The size; pixels would fill pages.
impl fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RgbImage").field("width", &self.width).field("height", &self.height).finish_non_exhaustive()
    }
}

impl RgbImage {
    /// Takes `pixels` of `[height, width, 3]`.
    ///
    /// # Errors
    /// [`ImageError::Buffer`] when the length does not fit the size or a side is 0.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Result<Self, ImageError> {
        check_buffer(width, height, pixels.len())?;
        Ok(Self { width, height, pixels })
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The samples, `[height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Gives the samples away.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}

/// Bytes of a picture of this size.
pub(crate) fn buffer_bytes(width: u32, height: u32) -> u64 {
    u64::from(width) * u64::from(height) * CHANNELS as u64
}

/// An error unless `got` bytes hold exactly one picture of this size with at least one pixel.
pub(crate) fn check_buffer(width: u32, height: u32, got: usize) -> Result<(), ImageError> {
    let want = buffer_bytes(width, height);
    if want == 0 || want != got as u64 {
        return Err(ImageError::Buffer { width, height, want, got: got as u64 });
    }
    Ok(())
}
