//! Handles of values and leaves, shapes and element types.

/// Sizes of the axes, outermost first. Matrices of tokens are `[N, C]`.
pub type Shape = Vec<usize>;

/// Number of elements of a shape.
pub fn volume(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Element type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float: everything that has a gradient.
    F32,
    /// 32-bit index.
    U32,
    /// Pixels.
    U8,
}

impl DType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::U8 => 1,
        }
    }
}

/// Handle of a value in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(crate) u32);

impl Value {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Handle of a leaf in its graph and in every program compiled from that graph. Slices are bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leaf(pub(crate) u32);

impl Leaf {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
