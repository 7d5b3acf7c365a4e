// Parameters of attention, of all its kernels.

const WG = 64u;

struct Params {
    images: u32, heads: u32, channels: u32, head_width: u32,
    query_rows: u32, key_rows: u32, q_width: u32, kv_width: u32,               // rows of an image; columns of the operands
    key_column: u32, value_column: u32, bias_rows: u32, segment: u32,
    units_each: u32, q_first: u32, kv_first: u32, y_first: u32,                // words before the piece's first in each binding
    dq_first: u32, dkv_first: u32, stats_first: u32, partial_first: u32,
    scale: f32, is_drawn: u32, pad0: u32, pad1: u32,
}
