//! Encoded images: their size without decoding, and PNG from pixels.

use esvit_image::{encode_png as encode, info};
use napi::Result;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

use crate::arrays::Lent;
use crate::failure::{IMAGE, failure};
use crate::json::Json;

/// Reads the size of an encoded image from its header, without decoding its pixels.
///
/// Throws `IMAGE` where the bytes are no image that can be decoded.
#[napi(ts_args_type = "encoded: Uint8Array", ts_return_type = "ImageInfo")]
pub fn image_info(encoded: Lent<u8>) -> Result<Json> {
    Json::of(info(encoded.get()?).map_err(|e| failure(IMAGE, e))?)
}

/// Encodes 8-bit RGB pixels, rows top to bottom, as a lossless PNG.
///
/// Throws `IMAGE` where the sizes do not fit the pixels.
#[napi(ts_args_type = "pixels: Uint8Array, width: number, height: number")]
pub fn encode_png(pixels: Lent<u8>, width: u32, height: u32) -> Result<Uint8Array> {
    encode(pixels.get()?, width, height).map(Uint8Array::from).map_err(|e| failure(IMAGE, e))
}
