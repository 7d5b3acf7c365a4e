// Operands and result of one part of a product C = A·B: parameters and bindings of every kernel that multiplies. The contract is in
// matmul.rs.

const A_BY_INNER = 1u;  // A is stored [k, m]
const B_BY_OUTER = 2u;  // B is stored [n, k]

struct Params {
    m: u32, n: u32, k: u32, k_piece: u32,
    a_first: u32, a_stride: u32, b_first: u32, b_stride: u32,  // first element in the binding, and from row to row
    c_first: u32, c_stride: u32, c_piece: u32, flags: u32,     // c_piece: from piece to piece of the inner axis
}

@group(0) @binding(0) var<storage, read_write> a: array<f32>;     // [m, k] or [k, m]
@group(0) @binding(1) var<storage, read_write> b: array<f32>;     // [k, n] or [n, k]
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;  // [n]; not read without BIAS
@group(0) @binding(3) var<storage, read_write> c: array<f32>;     // [pieces, m, n]
@group(0) @binding(4) var<uniform>             p: Params;
