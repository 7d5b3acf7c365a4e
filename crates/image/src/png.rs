//! RGB pixels to PNG, for figures and for looking at crops.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::ImageError;
use crate::raster::check_buffer;

/// Encodes 8-bit RGB of `[height, width, 3]`.
///
/// # Errors
/// [`ImageError::Buffer`] when the length does not fit the size or a side is 0,
/// [`ImageError::Encode`] when the encoder refuses.
pub fn encode_png(rgb: &[u8], width: u32, height: u32) -> Result<Vec<u8>, ImageError> {
    check_buffer(width, height, rgb.len())?;
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(rgb, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| ImageError::Encode(error.to_string()))?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode;
    use crate::limits::Limits;

    #[test]
    fn what_is_encoded_is_decoded() {
        let rgb: Vec<u8> = (0..7 * 5 * 3).map(|i| (i * 37 % 256) as u8).collect();
        let png = encode_png(&rgb, 7, 5).unwrap();
        let back = decode(&png, &Limits::default()).unwrap();
        assert_eq!((back.width(), back.height(), back.pixels()), (7, 5, rgb.as_slice()));
    }

    #[test]
    fn a_wrong_length_is_named() {
        let error = encode_png(&[0; 10], 2, 2).unwrap_err();
        assert_eq!(error.to_string(), "a buffer for 2 x 2 RGB pixels must have 12 bytes, got 10");
    }
}
