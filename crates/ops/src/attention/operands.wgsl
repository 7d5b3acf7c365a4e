// Operands that all kernels with scores bind, the keys of a query, and the score of a pair.

const PADDING = 0xffffffffu;   // a key that is zero

@group(0) @binding(0) var<storage, read_write> q: array<f32>;      // [queries, q_width]
@group(0) @binding(1) var<storage, read_write> kv: array<f32>;     // [keys, kv_width]
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;   // [bias_rows, heads]; not read without rows
@group(0) @binding(3) var<storage, read_write> table: array<u32>;  // queries and their keys: see words() in gpu.rs

// The keys a query sees: `count` entries of the table, (row, slot of the bias), from word `first` on. The query's own slot is added to
// those behind the first `absolute`.
struct KeyList { first: u32, count: u32, slot: u32, absolute: u32 }

fn keys_of(variant: u32, query_row: u32) -> KeyList {
    let at = table[2u * variant] + 4u * query_row;
    return KeyList(table[at], table[at + 1u], table[at + 2u], table[at + 3u]);
}

// Row of a query's k-th key, or PADDING.
fn key_row(list: KeyList, k: u32) -> u32 {
    return table[list.first + 2u * k];
}

// Row of the bias for a query and its k-th key.
fn bias_slot(list: KeyList, k: u32) -> u32 {
    return table[list.first + 2u * k + 1u] + select(list.slot, 0u, k < list.absolute);
}

// Lanes that share a head's channels, a power of two; where they are fewer than a workgroup has, its slices share the rows of a tile.
fn lanes() -> u32 {
    var n = 8u;
    while n < min(p.head_width, WG) { n *= 2u; }
    return n;
}

// The score of a query at word `query` of q and of a key: k's word is not read for padding.
fn score(query: u32, row: u32, key: u32, slot: u32, head: u32) -> f32 {
    var s = 0.0;
    if row != PADDING {
        for (var c = 0u; c < p.head_width; c++) { s += q[query + c] * kv[key + c]; }
    }
    s *= p.scale;
    if p.bias_rows != 0u { s += bias[slot * p.heads + head]; }
    return s;
}
