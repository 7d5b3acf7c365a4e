//! Crop plans: what to do to one image for one crop, as plain numbers, and their execution.
//!
//! TypeScript's types are generated from the structs, in camel case; an unknown field is an error. Order of work: cut the box, resize it
//! (all of it or a window of the result), mirror, then the operations as listed.

use serde::Deserialize;

use crate::color::{adjust, blur, hue};
use crate::decode::decode;
use crate::error::ImageError;
use crate::limits::Limits;
use crate::raster::{RgbImage, buffer_bytes, check_buffer};
use crate::resample::{Region, ResampleFilter, resample};

/// Longest side of a crop, in pixels.
pub const MAX_SIDE: u32 = 4096;

/// Largest blur, in pixels.
pub const MAX_BLUR_RADIUS: f64 = blur::MAX_SIGMA as f64;

/// Crop of one image, as plain numbers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CropPlan {
    /// First column of the box in the decoded image.
    pub left: u32,
    /// First row of the box.
    pub top: u32,
    /// Columns of the box. The box is cut first, then resized.
    pub width: u32,
    /// Rows of the box.
    pub height: u32,
    /// Width of the result, 1 to [`MAX_SIDE`].
    pub out_width: u32,
    /// Height of the result, 1 to [`MAX_SIDE`].
    pub out_height: u32,
    /// Part of the resized box that is the result; without it, the box is resized to the result's size.
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub window: Option<CropWindow>,
    /// Interpolation.
    pub filter: ResampleFilter,
    /// Mirrors left and right, after the resize.
    pub flip: bool,
    /// Applied in this order, after the flip.
    pub operations: Vec<PixelOperation>,
}

/// Part of a resized box, as large as the plan's result. The rest of the resized box is never made, so it may be of any size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CropWindow {
    /// Width the box is resized to.
    pub full_width: u32,
    /// Height the box is resized to.
    pub full_height: u32,
    /// First column of the result in the resized box.
    pub left: u32,
    /// First row of the result in the resized box.
    pub top: u32,
}

/// Change of a crop's pixels. Pillow's and torchvision's definitions, 8 bit in, 8 bit out.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
pub enum PixelOperation {
    /// Blends with black.
    Brightness {
        /// 0 is black, 1 no change. Not negative.
        factor: f64,
    },
    /// Blends with the mean gray.
    Contrast {
        /// 0 is the mean gray, 1 no change. Not negative.
        factor: f64,
    },
    /// Blends with the own gray.
    Saturation {
        /// 0 is gray, 1 no change. Not negative.
        factor: f64,
    },
    /// Shifts the hue circle.
    Hue {
        /// In turns, -0.5 to 0.5.
        shift: f64,
    },
    /// Three equal channels.
    Grayscale {},
    /// Pillow's `GaussianBlur`.
    Blur {
        /// Standard deviation in pixels, 0 to [`MAX_BLUR_RADIUS`].
        radius: f64,
    },
    /// Inverts samples at or above the threshold.
    Solarize {
        /// 0 to 256; 256 changes nothing.
        threshold: u16,
    },
}

impl CropPlan {
    /// Bytes of the result, `[out_height, out_width, 3]`.
    pub fn out_bytes(&self) -> usize {
        buffer_bytes(self.out_width, self.out_height) as usize
    }

    /// Checks every field that does not depend on an image.
    ///
    /// # Errors
    /// [`ImageError::Plan`] naming the first field out of range.
    pub fn check(&self) -> Result<(), ImageError> {
        check_side("outWidth", self.out_width)?;
        check_side("outHeight", self.out_height)?;
        if let Some(window) = &self.window {
            window.check(self.out_width, self.out_height).map_err(|error| within("window", error))?;
        }
        self.operations
            .iter()
            .enumerate()
            .try_for_each(|(index, operation)| operation.check().map_err(|error| within(&format!("operations[{index}]"), error)))
    }

    fn region(&self) -> Region {
        Region { left: self.left, top: self.top, width: self.width, height: self.height }
    }

    /// Size (width, height) the box is resized to, and the part of it that is the result.
    fn resized(&self) -> ((u32, u32), Region) {
        let (width, height) = (self.out_width, self.out_height);
        match self.window {
            Some(CropWindow { full_width, full_height, left, top }) => ((full_width, full_height), Region { left, top, width, height }),
            None => ((width, height), Region { left: 0, top: 0, width, height }),
        }
    }
}

impl CropWindow {
    /// Checks that a result of this size lies in the resized box.
    fn check(&self, out_width: u32, out_height: u32) -> Result<(), ImageError> {
        let axes =
            [("fullWidth", self.full_width, "left", self.left, out_width), ("fullHeight", self.full_height, "top", self.top, out_height)];
        for (full_name, full, start_name, start, length) in axes {
            if full < length {
                return Err(ImageError::Plan {
                    field: full_name.into(),
                    want: format!("at least the result's {length}"),
                    got: full.to_string(),
                });
            }
            if start > full - length {
                return Err(ImageError::Plan {
                    field: start_name.into(),
                    want: format!("from 0 to {}", full - length),
                    got: start.to_string(),
                });
            }
        }
        Ok(())
    }
}

impl PixelOperation {
    fn check(&self) -> Result<(), ImageError> {
        let (field, value, range) = match *self {
            // A finite f64 may still be infinite as the f32 the blend is computed in.
            Self::Brightness { factor } | Self::Contrast { factor } | Self::Saturation { factor } => {
                ("factor", factor, 0.0..=f64::from(f32::MAX))
            }
            Self::Hue { shift } => ("shift", shift, -0.5..=0.5),
            Self::Blur { radius } => ("radius", radius, 0.0..=MAX_BLUR_RADIUS),
            Self::Solarize { threshold } => ("threshold", f64::from(threshold), 0.0..=256.0),
            Self::Grayscale {} => return Ok(()),
        };
        if range.contains(&value) {
            return Ok(());
        }
        let want = match field {
            "factor" => "finite and not negative".to_owned(),
            _ => format!("from {} to {}", range.start(), range.end()),
        };
        Err(ImageError::Plan { field: field.into(), want, got: value.to_string() })
    }

    /// Applies the operation in place to `[height, width, 3]`.
    fn apply(&self, pixels: &mut [u8], width: u32, height: u32) {
        match *self {
            Self::Brightness { factor } => adjust::brightness(pixels, factor as f32),
            Self::Contrast { factor } => adjust::contrast(pixels, factor as f32),
            Self::Saturation { factor } => adjust::saturation(pixels, factor as f32),
            Self::Hue { shift } => hue::shift_hue(pixels, shift),
            Self::Grayscale {} => adjust::grayscale(pixels),
            Self::Blur { radius } => blur::gaussian_blur(pixels, width, height, radius as f32),
            Self::Solarize { threshold } => adjust::solarize(pixels, threshold),
        }
    }
}

/// Executes `plan` on `image` and writes `[out_height, out_width, 3]` to `out`.
///
/// # Errors
/// [`ImageError::Plan`] naming the field that is out of range, [`ImageError::Buffer`] when `out`
/// has another length than [`CropPlan::out_bytes`].
pub fn render(image: &RgbImage, plan: &CropPlan, out: &mut [u8]) -> Result<(), ImageError> {
    plan.check()?;
    let (width, height) = (plan.out_width, plan.out_height);
    let (full, window) = plan.resized();
    resample(image, plan.region(), full, window, plan.filter, out)?;
    if plan.flip {
        adjust::flip_horizontal(out, width);
    }
    for operation in &plan.operations {
        operation.apply(out, width, height);
    }
    Ok(())
}

/// Decodes `encoded` once and executes every plan on it; crop `i` is written to `outs[i]`.
///
/// # Errors
/// As [`decode`] and [`render`]; a field is named `plans[i].field`. Plans are checked before the image is decoded, boxes after it.
/// After an error, `outs` hold any bytes.
///
/// # Panics
/// When there are not as many outputs as plans.
pub fn render_into(encoded: &[u8], plans: &[CropPlan], outs: &mut [&mut [u8]], limits: &Limits) -> Result<(), ImageError> {
    assert_eq!(plans.len(), outs.len(), "one output for each plan");
    let named = |index: usize| move |error| within(&format!("plans[{index}]"), error);
    for (index, (plan, out)) in plans.iter().zip(outs.iter()).enumerate() {
        plan.check().map_err(named(index))?;
        check_buffer(plan.out_width, plan.out_height, out.len())?;
    }
    let image = decode(encoded, limits)?;
    for (index, (plan, out)) in plans.iter().zip(outs).enumerate() {
        render(&image, plan, out).map_err(named(index))?;
    }
    Ok(())
}

/// Decodes `encoded` once and executes every plan on it; the crops' pixels follow each other in the result.
///
/// # Errors
/// As [`render_into`].
pub fn render_all(encoded: &[u8], plans: &[CropPlan], limits: &Limits) -> Result<Vec<u8>, ImageError> {
    // Before memory is taken: sides are bounded then.
    for (index, plan) in plans.iter().enumerate() {
        plan.check().map_err(|error| within(&format!("plans[{index}]"), error))?;
    }
    let mut pixels = vec![0; plans.iter().map(CropPlan::out_bytes).sum()];
    let mut rest = pixels.as_mut_slice();
    let mut outs = Vec::with_capacity(plans.len());
    for plan in plans {
        let out = rest.split_off_mut(..plan.out_bytes()).expect("the sum of the plans' bytes was allocated");
        outs.push(out);
    }
    render_into(encoded, plans, &mut outs, limits)?;
    Ok(pixels)
}

fn check_side(field: &str, side: u32) -> Result<(), ImageError> {
    if (1..=MAX_SIDE).contains(&side) {
        return Ok(());
    }
    Err(ImageError::Plan { field: field.into(), want: format!("from 1 to {MAX_SIDE}"), got: side.to_string() })
}

/// Puts `place` in front of the field an error names.
fn within(place: &str, error: ImageError) -> ImageError {
    match error {
        ImageError::Plan { field, want, got } => ImageError::Plan { field: format!("{place}.{field}"), want, got },
        other => other,
    }
}
