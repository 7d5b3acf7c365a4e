//! JPEG: the header as libjpeg reads it, the pixels by `zune-jpeg`.
//!
//! `zune-jpeg` is pure Rust with vector instructions, and within 3 levels of libjpeg-turbo on our
//! photographs (mean distance below 0.1; the inverse transforms round differently). Three of its
//! habits differ from libjpeg's and are evened out here, with one walk over the markers that
//! costs microseconds:
//!
//! - it fills up a picture whose end is missing; libjpeg's users get an error. We look for the
//!   end-of-image marker first: [`ImageError::Truncated`].
//! - it reads an Adobe marker as the last word on the color space, even against a JFIF marker
//!   or the number of components. [`Header::color`] follows libjpeg's rules, and where the two
//!   differ a copy of the file with unambiguous markers is decoded.
//! - its strict mode, which we want because it reports corrupt scans, also refuses stray bytes
//!   between header segments, which libjpeg skips: with such bytes it is not used.
//!
//! Sources: ITU-T T.81, annex B; libjpeg's `default_decompress_parms`.

use std::borrow::Cow;

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use crate::error::ImageError;
use crate::limits::{ImageInfo, Limits};
use crate::raster::{RgbImage, buffer_bytes};

const FORMAT: &str = "JPEG";

/// Color model of the components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Color {
    Gray,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

/// Segments before the first scan. Offsets count from the start of the file.
#[derive(Debug)]
struct Header {
    info: ImageInfo,
    /// Where each component's identifier stands in the frame header.
    component_ids_at: Vec<usize>,
    component_ids: Vec<u8>,
    /// Second byte of the frame's marker: the way of coding.
    coding: u8,
    /// Bits of a sample.
    precision: u8,
    jfif: bool,
    /// Offset and value of the color transform in an Adobe segment.
    adobe_transform: Option<(usize, u8)>,
    /// Bytes that belong to no segment were skipped.
    stray_bytes: bool,
    /// Offset of the first start-of-scan segment's length.
    first_scan_at: usize,
}

fn truncated() -> ImageError {
    ImageError::Truncated { format: FORMAT }
}

fn corrupt(reason: impl Into<String>) -> ImageError {
    ImageError::Corrupt { format: FORMAT, reason: reason.into() }
}

/// Offset and code of the next marker at or after `at`, and whether bytes were skipped.
fn next_marker(bytes: &[u8], mut at: usize) -> Result<(usize, u8, bool), ImageError> {
    let start = at;
    loop {
        let first = *bytes.get(at).ok_or_else(truncated)?;
        let code = *bytes.get(at + 1).ok_or_else(truncated)?;
        match (first, code) {
            // 0xFF may be repeated as padding in front of a marker.
            (0xff, 0xff) => at += 1,
            (0xff, 1..=0xfe) => return Ok((at, code, bytes[start..at].iter().any(|&b| b != 0xff))),
            _ => at += 1,
        }
    }
}

/// The segment whose length field stands at `at`, without that field.
fn segment(bytes: &[u8], at: usize) -> Result<&[u8], ImageError> {
    let length = bytes.get(at..at + 2).ok_or_else(truncated)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length < 2 {
        return Err(corrupt(format!("a segment declares {length} bytes")));
    }
    bytes.get(at + 2..at + length).ok_or_else(truncated)
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut frame = None;
        let (mut jfif, mut adobe_transform, mut stray_bytes) = (false, None, false);
        let mut at = 2;
        loop {
            let (marker_at, code, skipped) = next_marker(bytes, at)?;
            stray_bytes |= skipped;
            at = marker_at + 2;
            match code {
                // Restarts, TEM and a second start of image have no body.
                0x01 | 0xd0..=0xd8 => continue,
                0xd9 => return Err(corrupt("the image ends before its first scan")),
                _ => {}
            }
            let body = segment(bytes, at)?;
            match code {
                // All frame headers; 0xc4, 0xc8 and 0xcc are tables.
                0xc0..=0xcf if !matches!(code, 0xc4 | 0xc8 | 0xcc) => {
                    let short = || corrupt("the frame header is too short");
                    let &[precision, h1, h0, w1, w0, count, ..] = body else { return Err(short()) };
                    let ids_at: Vec<usize> = (0..usize::from(count)).map(|i| 6 + 3 * i).collect();
                    let ids = ids_at.iter().map(|&i| body.get(i).copied()).collect::<Option<Vec<u8>>>();
                    let info =
                        ImageInfo { width: u32::from(u16::from_be_bytes([w1, w0])), height: u32::from(u16::from_be_bytes([h1, h0])) };
                    if info.width == 0 || info.height == 0 {
                        return Err(corrupt(format!("declares {} x {} pixels", info.width, info.height)));
                    }
                    let ids_at = ids_at.into_iter().map(|i| at + 2 + i).collect();
                    frame = Some((info, ids_at, ids.ok_or_else(short)?, code, precision));
                }
                0xda => {
                    let (info, component_ids_at, component_ids, coding, precision) =
                        frame.ok_or_else(|| corrupt("no frame header before the first scan"))?;
                    return Ok(Self {
                        info,
                        component_ids_at,
                        component_ids,
                        coding,
                        precision,
                        jfif,
                        adobe_transform,
                        stray_bytes,
                        first_scan_at: at,
                    });
                }
                0xe0 if body.starts_with(b"JFIF\0") => jfif = true,
                0xee if body.starts_with(b"Adobe") && body.len() >= 12 => {
                    adobe_transform = Some((at + 2 + 11, body[11]));
                }
                _ => {}
            }
            at += 2 + body.len();
        }
    }

    /// An error for the ways of coding that are not read here.
    fn check_coding(&self) -> Result<(), ImageError> {
        let unsupported = |feature: String| Err(ImageError::Unsupported { format: FORMAT, feature });
        match (self.coding, self.precision) {
            // Baseline, extended sequential and progressive, all with Huffman codes.
            (0xc0..=0xc2, 8) => Ok(()),
            (0xc0..=0xc2, bits) => unsupported(format!("{bits} bits a sample")),
            (0xc3 | 0xc7, _) => unsupported("lossless coding".into()),
            (0xc9..=0xcf, _) => unsupported("arithmetic coding".into()),
            _ => unsupported("hierarchical coding".into()),
        }
    }

    /// Color space of the components by libjpeg's rules, in its order.
    fn color(&self) -> Result<Color, ImageError> {
        let transform = self.adobe_transform.map(|(_, value)| value);
        match (self.component_ids.as_slice(), transform) {
            ([_], _) => Ok(Color::Gray),
            ([_, _, _], _) if self.jfif => Ok(Color::YCbCr),
            ([_, _, _], Some(0)) => Ok(Color::Rgb),
            ([_, _, _], Some(_)) => Ok(Color::YCbCr),
            (b"RGB", None) => Ok(Color::Rgb),
            ([_, _, _], None) => Ok(Color::YCbCr),
            ([_, _, _, _], None | Some(0)) => Ok(Color::Cmyk),
            ([_, _, _, _], Some(_)) => Ok(Color::Ycck),
            (ids, _) => Err(ImageError::Unsupported { format: FORMAT, feature: format!("{} components", ids.len()) }),
        }
    }
}

/// Offsets of the length fields of all scans.
///
/// # Errors
/// [`ImageError::Truncated`] when the file stops before the end-of-image marker.
fn scans(bytes: &[u8], first: usize) -> Result<Vec<usize>, ImageError> {
    let mut scans = vec![first];
    let mut at = first + 2 + segment(bytes, first)?.len();
    loop {
        let (marker_at, code, _) = next_marker(bytes, at)?;
        at = marker_at + 2;
        match code {
            0x01 | 0xd0..=0xd8 => continue,
            0xd9 => return Ok(scans),
            0xda => scans.push(at),
            _ => {}
        }
        match segment(bytes, at) {
            Ok(body) => at += 2 + body.len(),
            // A marker code inside a damaged scan: the decoder will say what is wrong with it.
            Err(ImageError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The file as it is, or a copy in which every marker says what libjpeg would understand.
fn unambiguous<'a>(bytes: &'a [u8], header: &Header, scans: &[usize], color: Color) -> Cow<'a, [u8]> {
    let mut bytes = Cow::Borrowed(bytes);
    if let Some((at, transform)) = header.adobe_transform {
        let wanted = match color {
            Color::Cmyk => 0,
            Color::Ycck => 2,
            Color::Gray | Color::YCbCr | Color::Rgb => 1,
        };
        if transform != wanted {
            bytes.to_mut()[at] = wanted;
        }
    }
    let ids = &header.component_ids;
    let wanted_ids = match color {
        Color::Rgb => b"RGB",
        Color::YCbCr if ids == b"RGB" => &[1, 2, 3],
        _ => return bytes,
    };
    if ids == wanted_ids {
        return bytes;
    }
    let renamed = |id: u8| ids.iter().position(|&old| old == id).map(|place| wanted_ids[place]);
    let bytes_mut = bytes.to_mut();
    for &at in scans {
        // Length, number of components, then an identifier and a table selector for each.
        let count = usize::from(bytes_mut.get(at + 2).copied().unwrap_or(0));
        for selector in 0..count {
            if let Some(id) = bytes_mut.get_mut(at + 3 + 2 * selector) {
                *id = renamed(*id).unwrap_or(*id);
            }
        }
    }
    for (&at, &id) in header.component_ids_at.iter().zip(wanted_ids) {
        bytes_mut[at] = id;
    }
    bytes
}

fn from_zune(error: DecodeErrors) -> ImageError {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => truncated(),
        DecodeErrors::Unsupported(scheme) => ImageError::Unsupported { format: FORMAT, feature: format!("{scheme:?}") },
        DecodeErrors::SofError(reason) => ImageError::Unsupported { format: FORMAT, feature: reason },
        other => corrupt(other.to_string()),
    }
}

/// Width and height, from the header alone.
pub(crate) fn info(bytes: &[u8]) -> Result<ImageInfo, ImageError> {
    Header::read(bytes).map(|header| header.info)
}

/// The picture as stored: no EXIF orientation; gray replicated; CMYK as Adobe writes it
/// (inverted) to RGB by `(255 - K) - (255 - K) · C / 255`, rounded.
pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, ImageError> {
    let header = Header::read(bytes)?;
    limits.check(FORMAT, header.info)?;
    header.check_coding()?;
    let color = header.color()?;
    let scans = scans(bytes, header.first_scan_at)?;
    let bytes = unambiguous(bytes, &header, &scans, color);
    let options = DecoderOptions::default()
        .set_strict_mode(!header.stray_bytes)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let pixels = JpegDecoder::new_with_options(ZCursor::new(&*bytes), options).decode().map_err(from_zune)?;
    let ImageInfo { width, height } = header.info;
    if pixels.len() as u64 != buffer_bytes(width, height) {
        return Err(corrupt("the scans do not fill the declared size"));
    }
    RgbImage::new(width, height, pixels)
}
