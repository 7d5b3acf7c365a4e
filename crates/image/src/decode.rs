//! Encoded bytes to RGB, with the meaning of Pillow's `Image.open(...).convert("RGB")`.
//!
//! - The format is found by content, never by name.
//! - The stored picture counts: an EXIF orientation is not applied, alpha is dropped without
//!   compositing, gray is replicated, palettes are expanded, of an animation the first frame is read.
//! - 16-bit samples keep their high byte. For RGB that is Pillow's result; 16-bit gray Pillow
//!   clips to 255, which turns nearly every such picture white, so there we differ on purpose.
//! - Incomplete or contradictory data are an error, as they are for Pillow unless told otherwise;
//!   corrupt JPEG scans, of which libjpeg makes what it can, are an error here.
//!
//! The size is checked against [`Limits`] on the header, before the pixels are allocated.

use std::io::{Cursor, ErrorKind};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use crate::error::ImageError;
use crate::jpeg;
use crate::limits::{ImageInfo, Limits};
use crate::raster::RgbImage;

/// Decodes a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF.
///
/// # Errors
/// Every variant of [`ImageError`] that names a format, [`ImageError::Empty`] and
/// [`ImageError::UnknownFormat`].
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let (format, name) = format_of(bytes)?;
    if format == ImageFormat::Jpeg {
        return jpeg::decode(bytes, limits);
    }
    let decoder = open(bytes, format, name, limits)?;
    limits.check(name, size_of(&decoder, name)?)?;
    let decoded = DynamicImage::from_decoder(decoder).map_err(|error| from_image(name, error))?;
    let (width, height) = (decoded.width(), decoded.height());
    RgbImage::new(width, height, to_rgb(decoded, name)?)
}

/// Reads width and height from the header; the pixels are neither decoded nor checked.
///
/// # Errors
/// As [`decode`], except that a large picture is not an error.
pub fn info(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    let (format, name) = format_of(bytes)?;
    if format == ImageFormat::Jpeg {
        return jpeg::info(bytes);
    }
    size_of(&open(bytes, format, name, &Limits::default())?, name)
}

fn format_of(bytes: &[u8]) -> Result<(ImageFormat, &'static str), ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let format = image::guess_format(bytes).map_err(|_| ImageError::UnknownFormat)?;
    let name = match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        _ => return Err(ImageError::UnknownFormat),
    };
    Ok((format, name))
}

fn open<'a>(bytes: &'a [u8], format: ImageFormat, name: &'static str, limits: &Limits) -> Result<impl ImageDecoder + 'a, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut bounds = image::Limits::no_limits();
    // Eight bytes a pixel hold the largest sample type read here (16-bit RGBA); the same again
    // is room for a decoder's own tables and strips.
    bounds.max_alloc = Some(limits.max_pixels.saturating_mul(16));
    reader.limits(bounds);
    reader.into_decoder().map_err(|error| from_image(name, error))
}

fn size_of(decoder: &impl ImageDecoder, format: &'static str) -> Result<ImageInfo, ImageError> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::Corrupt { format, reason: format!("declares {width} x {height} pixels") });
    }
    Ok(ImageInfo { width, height })
}

/// The samples as `[height, width, 3]`, alpha dropped, the high byte of 16 bits.
fn to_rgb(decoded: DynamicImage, format: &'static str) -> Result<Vec<u8>, ImageError> {
    fn gray<T: Copy>(samples: &[T], stride: usize, to_byte: impl Fn(T) -> u8) -> Vec<u8> {
        samples.chunks_exact(stride).flat_map(|pixel| [to_byte(pixel[0]); 3]).collect()
    }
    fn color<T: Copy>(samples: &[T], stride: usize, to_byte: impl Fn(T) -> u8) -> Vec<u8> {
        samples.chunks_exact(stride).flat_map(|p| [to_byte(p[0]), to_byte(p[1]), to_byte(p[2])]).collect()
    }
    let high = |sample: u16| (sample >> 8) as u8;
    let same = |sample: u8| sample;
    Ok(match decoded {
        DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
        DynamicImage::ImageRgba8(rgba) => color(&rgba, 4, same),
        DynamicImage::ImageLuma8(luma) => gray(&luma, 1, same),
        DynamicImage::ImageLumaA8(luma) => gray(&luma, 2, same),
        DynamicImage::ImageRgb16(rgb) => color(&rgb, 3, high),
        DynamicImage::ImageRgba16(rgba) => color(&rgba, 4, high),
        DynamicImage::ImageLuma16(luma) => gray(&luma, 1, high),
        DynamicImage::ImageLumaA16(luma) => gray(&luma, 2, high),
        other => {
            return Err(ImageError::Unsupported { format, feature: format!("samples of type {:?}", other.color()) });
        }
    })
}

fn from_image(format: &'static str, error: image::ImageError) -> ImageError {
    use std::error::Error;
    // The end of the input is an I/O error, bare or inside the decoder's own.
    let is_end =
        |error: &(dyn Error + 'static)| error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::UnexpectedEof);
    let mut cause: Option<&(dyn Error + 'static)> = match &error {
        image::ImageError::IoError(io) => Some(io),
        other => other.source(),
    };
    while let Some(inner) = cause {
        if is_end(inner) {
            return ImageError::Truncated { format };
        }
        cause = inner.source();
    }
    match error {
        image::ImageError::Unsupported(error) => ImageError::Unsupported { format, feature: error.to_string() },
        image::ImageError::Limits(error) => ImageError::Unsupported { format, feature: error.to_string() },
        error => ImageError::Corrupt { format, reason: error.to_string() },
    }
}
