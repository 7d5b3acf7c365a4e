//! Failures between a file's bytes and a crop's pixels.

/// Why an image could not be decoded, cropped or encoded. One sentence each; the caller, who
/// knows the file, puts its name in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There are no bytes at all.
    #[error("the file is empty")]
    Empty,
    /// The first bytes belong to none of the formats read here.
    #[error("not a JPEG, PNG, WebP, GIF, BMP or TIFF image")]
    UnknownFormat,
    /// The data stop before the image is complete.
    #[error("{format}: the data end before the image does")]
    Truncated {
        /// Format by content.
        format: &'static str,
    },
    /// The data contradict the format.
    #[error("{format}: {reason}")]
    Corrupt {
        /// Format by content.
        format: &'static str,
        /// The decoder's own words.
        reason: String,
    },
    /// The data may be right, but this build does not read that variant of the format.
    #[error("{format}: not supported: {feature}")]
    Unsupported {
        /// Format by content.
        format: &'static str,
        /// The feature that the file asks for.
        feature: String,
    },
    /// The header declares more pixels than [`crate::Limits`] allows. Nothing was allocated.
    #[error("{format}: {width} x {height} pixels are more than the limit of {limit}")]
    TooLarge {
        /// Format by content.
        format: &'static str,
        /// Declared width in pixels.
        width: u32,
        /// Declared height in pixels.
        height: u32,
        /// Pixels allowed.
        limit: u64,
    },
    /// A field of a plan is out of range for this image.
    #[error("{field} must be {want}, got {got}")]
    Plan {
        /// Path of the field, for instance `plans[3].operations[0].factor`.
        field: String,
        /// Values that would have been accepted.
        want: String,
        /// The value that came.
        got: String,
    },
    /// A pixel buffer has another length than its size says.
    #[error("a buffer for {width} x {height} RGB pixels must have {want} bytes, got {got}")]
    Buffer {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes needed.
        want: u64,
        /// Bytes given.
        got: u64,
    },
    /// The PNG encoder refused.
    #[error("PNG encoding failed: {0}")]
    Encode(String),
}
