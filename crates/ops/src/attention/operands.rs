//! Operands on the CPU, and the part of one image and head.

use super::geometry::{ImageGroups, PADDING};

/// Operands of attention on the CPU.
#[derive(Clone, Copy)]
pub(super) struct AttentionOperands<'a> {
    pub q: &'a [f32],
    pub kv: &'a [f32],
    pub q_width: usize,
    pub kv_width: usize,
    /// First columns of k and v in `kv`.
    pub key_column: usize,
    pub value_column: usize,
    /// C: columns of y.
    pub c: usize,
    pub heads: usize,
    pub bias: Option<&'a [f32]>,
    pub draws: Option<&'a [u32]>,
}

impl AttentionOperands<'_> {
    /// Whether q, k and v are columns of one operand.
    pub fn is_fused(&self) -> bool {
        self.key_column > 0
    }
}

/// Rows of one image, and columns of one head.
pub(super) struct AttentionHead<'a> {
    pub from: AttentionOperands<'a>,
    pub image: ImageGroups<'a>,
    /// First column of the head's q, k and v.
    pub columns: [usize; 3],
    /// D: channels of a head.
    pub d: usize,
}

impl<'a> AttentionHead<'a> {
    /// Head `h` of an image.
    pub fn new(from: AttentionOperands<'a>, image: ImageGroups<'a>, h: usize) -> AttentionHead<'a> {
        let d = from.c / from.heads;
        AttentionHead { columns: [h * d, from.key_column + h * d, from.value_column + h * d], from, image, d }
    }

    /// q of a row.
    pub fn query(&self, row: u32) -> &'a [f32] {
        &self.from.q[(self.image.first_query + row as usize) * self.from.q_width + self.columns[0]..][..self.d]
    }

    /// k (part 1) or v (part 2) of a row, or nothing for padding.
    pub fn key(&self, part: usize, row: u32) -> Option<&'a [f32]> {
        let at = || (self.image.first_key + row as usize) * self.from.kv_width + self.columns[part];
        (row != PADDING).then(|| &self.from.kv[at()..][..self.d])
    }
}
