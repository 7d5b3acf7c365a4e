//! Tensors between JavaScript and the engine.

use esvit_engine::{Tensor, TensorValues};
use napi::Result;
use napi_derive::napi;

use crate::arrays::Copied;
use crate::failure::{STATE, failure};

/// A tensor with its values.
#[napi(object)]
pub struct TensorData {
    /// Name in the state dict.
    pub name: String,
    /// Sides; empty for a scalar.
    pub shape: Vec<u32>,
    /// Type of the values.
    #[napi(ts_type = "'f32' | 'i64'")]
    pub dtype: String,
    /// Little-endian values, row-major.
    #[napi(ts_type = "Uint8Array")]
    pub data: Copied<u8>,
}

/// A tensor without its values.
#[napi(object, object_from_js = false)]
#[derive(Clone)]
pub struct TensorShape {
    /// Name in the state dict.
    pub name: String,
    /// Sides; empty for a scalar.
    pub shape: Vec<u32>,
    /// Type of the values.
    #[napi(ts_type = "'f32' | 'i64'")]
    pub dtype: String,
}

fn dimensions(shape: &[usize]) -> Vec<u32> {
    shape.iter().map(|&n| n as u32).collect()
}

fn dtype(values: &TensorValues) -> &'static str {
    match values {
        TensorValues::F32(_) => "f32",
        TensorValues::I64(_) => "i64",
    }
}

/// Names, shapes and types of tensors, in order.
pub fn describe(tensors: &[Tensor]) -> Vec<TensorShape> {
    let one = |t: &Tensor| TensorShape { name: t.name.clone(), shape: dimensions(&t.shape), dtype: dtype(&t.values).into() };
    tensors.iter().map(one).collect()
}

fn give(tensor: Tensor) -> TensorData {
    let bytes = match &tensor.values {
        TensorValues::F32(v) => bytemuck::cast_slice::<f32, u8>(v).to_vec(),
        TensorValues::I64(v) => bytemuck::cast_slice::<i64, u8>(v).to_vec(),
    };
    TensorData { name: tensor.name, shape: dimensions(&tensor.shape), dtype: dtype(&tensor.values).into(), data: Copied(bytes) }
}

/// The engine's tensor; the number of bytes must be the shape's.
fn take(tensor: TensorData) -> Result<Tensor> {
    let shape: Vec<usize> = tensor.shape.iter().map(|&n| n as usize).collect();
    let volume = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let size = match tensor.dtype.as_str() {
        "f32" => 4,
        "i64" => 8,
        other => return Err(failure(STATE, format_args!("`{}` has type {other}; f32 and i64 are known", tensor.name))),
    };
    let bytes = tensor.data.0;
    if volume.and_then(|n| n.checked_mul(size)) != Some(bytes.len()) {
        return Err(failure(STATE, format_args!("`{}` has {} bytes, which is not its shape {shape:?}", tensor.name, bytes.len())));
    }
    let values = match size {
        4 => TensorValues::F32(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        _ => TensorValues::I64(bytes.chunks_exact(8).map(|b| i64::from_le_bytes(std::array::from_fn(|i| b[i]))).collect()),
    };
    Ok(Tensor { name: tensor.name, shape, values })
}

/// Tensors for JavaScript.
pub fn give_all(tensors: Vec<Tensor>) -> Vec<TensorData> {
    tensors.into_iter().map(give).collect()
}

/// Tensors for the engine.
pub fn take_all(tensors: Vec<TensorData>) -> Result<Vec<Tensor>> {
    tensors.into_iter().map(take).collect()
}
