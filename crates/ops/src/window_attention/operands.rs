//! Operands and results on the CPU, in single precision or in words of two bf16.

use esvit_graph::{Io, SliceMut};

use super::geometry::WindowGeometry;

/// Rows of tokens as the program keeps them.
#[derive(Clone, Copy)]
pub(super) enum TokenRows<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Words of two bf16.
    Bf16x2(&'a [u32]),
}

impl<'a> TokenRows<'a> {
    /// Operand `i`.
    pub fn of(io: &Io<'a>, i: usize) -> TokenRows<'a> {
        io.bf16x2(i).map_or_else(|| TokenRows::F32(io.f32(i)), TokenRows::Bf16x2)
    }

    /// Floats. Products that do not round get no others.
    pub fn f32(self) -> &'a [f32] {
        match self {
            TokenRows::F32(data) => data,
            TokenRows::Bf16x2(_) => panic!("window attention in single precision with an operand in bf16"),
        }
    }
}

/// A pointer that pieces of parallel work write disjoint rows through.
#[derive(Clone, Copy)]
pub(super) struct WindowRowsMut {
    /// First word of the matrix.
    pub base: *mut f32,
    /// Words of 32 bits.
    pub len: usize,
    /// Whether each is two bf16.
    pub bf16x2: bool,
}

impl WindowRowsMut {
    /// Rows of a result.
    pub fn new(result: &mut SliceMut) -> WindowRowsMut {
        match result {
            SliceMut::F32(y) => WindowRowsMut { base: y.as_mut_ptr(), len: y.len(), bf16x2: false },
            SliceMut::U32(y) => WindowRowsMut { base: y.as_mut_ptr().cast(), len: y.len(), bf16x2: true },
        }
    }
}

// SAFETY: pieces have different windows or heads, and no token lies in two windows of one geometry, so the columns written
// through copies of this pointer never overlap; no thread reads them before the loop ends.
unsafe impl Send for WindowRowsMut {}
// SAFETY: as above.
unsafe impl Sync for WindowRowsMut {}

/// Matrices that the operator reads.
#[derive(Clone, Copy)]
pub(super) struct WindowOperands<'a> {
    pub geometry: &'a WindowGeometry,
    pub heads: usize,
    pub qkv: TokenRows<'a>,
    /// Row of padding; zeros without.
    pub padding: Option<TokenRows<'a>>,
    /// 3·C: columns of qkv.
    pub three_c: usize,
    /// Bias of each head in [`BiasPanels`](super::bias::BiasPanels).
    pub panels: &'a [f32],
}

impl WindowOperands<'_> {
    /// D: channels of a head.
    pub fn d(&self) -> usize {
        self.three_c / 3 / self.heads
    }

    /// Bias of a head.
    pub fn bias_of(&self, head: usize) -> &[f32] {
        let one = self.geometry.panels.len();
        &self.panels[head * one..][..one]
    }
}
