use esvit_graph::Value;
use esvit_ops::Layout;

/// A packed token matrix `[N, C]` and what its rows are.
#[derive(Clone, Debug)]
pub struct TokenMatrix {
    /// The matrix.
    pub value: Value,
    /// Segments of its rows.
    pub layout: Layout,
}
