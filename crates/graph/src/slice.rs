//! Typed views of bound leaves and of the arena.

use crate::DType;

/// A value to read.
#[derive(Clone, Copy, Debug)]
pub enum Slice<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Indices.
    U32(&'a [u32]),
    /// Pixels.
    U8(&'a [u8]),
}

impl<'a> Slice<'a> {
    /// The floats.
    ///
    /// # Panics
    /// When the value is of another type: an operator that mistakes its operands is a bug.
    pub fn f32(self) -> &'a [f32] {
        match self {
            Slice::F32(s) => s,
            other => panic!("f32 operand expected, not {:?}", other.dtype()),
        }
    }

    /// The indices; panics like [`Slice::f32`].
    pub fn u32(self) -> &'a [u32] {
        match self {
            Slice::U32(s) => s,
            other => panic!("u32 operand expected, not {:?}", other.dtype()),
        }
    }

    /// The pixels; panics like [`Slice::f32`].
    pub fn u8(self) -> &'a [u8] {
        match self {
            Slice::U8(s) => s,
            other => panic!("u8 operand expected, not {:?}", other.dtype()),
        }
    }

    /// Element type.
    pub fn dtype(self) -> DType {
        match self {
            Slice::F32(_) => DType::F32,
            Slice::U32(_) => DType::U32,
            Slice::U8(_) => DType::U8,
        }
    }

    /// Number of elements.
    pub fn len(self) -> usize {
        match self {
            Slice::F32(s) => s.len(),
            Slice::U32(s) => s.len(),
            Slice::U8(s) => s.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Bytes of the elements.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Slice::F32(s) => bytemuck::cast_slice(s),
            Slice::U32(s) => bytemuck::cast_slice(s),
            Slice::U8(s) => s,
        }
    }
}

/// A value to write.
#[derive(Debug)]
pub enum SliceMut<'a> {
    /// Floats.
    F32(&'a mut [f32]),
    /// Indices.
    U32(&'a mut [u32]),
}

impl SliceMut<'_> {
    /// The floats; panics when the value is of another type.
    pub fn f32(&mut self) -> &mut [f32] {
        match self {
            SliceMut::F32(s) => s,
            SliceMut::U32(_) => panic!("f32 result expected"),
        }
    }

    /// The indices; panics when the value is of another type.
    pub fn u32(&mut self) -> &mut [u32] {
        match self {
            SliceMut::U32(s) => s,
            SliceMut::F32(_) => panic!("u32 result expected"),
        }
    }
}
