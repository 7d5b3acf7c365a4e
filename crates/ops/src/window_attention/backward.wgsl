// Attention inside windows, backward: what its two kernels share. Both recompute the probabilities: nothing is saved and nothing is added
// atomically. A workgroup owns 64 rows and 32 channels of one head, see rows.wgsl, in one block of the windows: one after the other, so
// that its share of the two sums over windows needs no memory but its own. A later dispatch adds the shares in order.

@group(0) @binding(3) var<storage, read_write> dy: array<f32>;        // [N, C]
@group(0) @binding(4) var<storage, read_write> dqkv: array<f32>;      // [N, 3·C]
@group(0) @binding(5) var<storage, read_write> stats: array<vec2f>;   // [windows, H, T] log Σ exp, Σ P·dP
@group(0) @binding(6) var<storage, read_write> partial: array<f32>;   // [blocks, (2w−1)², H] of dtable, or [blocks, 3·C] of dqkv_bias
@group(0) @binding(7) var<uniform>             p: Params;

// Four columns of dy, which padding does not have.
fn four_dy(token: u32, column: u32, count: u32) -> vec4f {
    var v = vec4f();
    if token == PADDING { return v; }
    let i = p.y_first + token * p.channels + column;
    if count >= 4u { return vec4f(dy[i], dy[i + 1u], dy[i + 2u], dy[i + 3u]); }
    if count > 0u { v.x = dy[i]; }
    if count > 1u { v.y = dy[i + 1u]; }
    if count > 2u { v.z = dy[i + 2u]; }
    return v;
}

// Stores four columns of dqkv, of which the first `count` exist.
fn store(token: u32, column: u32, count: u32, v: vec4f) {
    let i = p.dqkv_first + token * 3u * p.channels + column;
    if count > 0u { dqkv[i] = v.x; }
    if count > 1u { dqkv[i + 1u] = v.y; }
    if count > 2u { dqkv[i + 2u] = v.z; }
    if count > 3u { dqkv[i + 3u] = v.w; }
}

// The other channels of the head: (q·k, dy·v).
fn rest(query: u32, key: u32, head: u32, chunk: u32) -> vec2f {
    var s = vec2f();
    for (var c = 0u; c < p.head_width; c++) {
        if c / WIDTH != chunk {
            let column = head * p.head_width + c;
            s.x += value(query, column) * value(key, p.channels + column);
            if query != PADDING { s.y += dy[p.y_first + query * p.channels + column] * value(key, 2u * p.channels + column); }
        }
    }
    return s;
}

// What the table and the mask add to the score of a pair.
fn extra(slot: u32, same_region: bool, head: u32) -> f32 {
    let span = p.span;
    let mask = select(MASK, 0.0, same_region);
    if span * span <= SLOTS { return biases[slot] + mask; }
    return table[slot * p.heads + head] + mask;
}

// Work of a workgroup: a block of the windows, a head and 32 of its channels. Heads side by side in memory are neighbors.
struct Work { block: u32, head: u32, chunk: u32 }

fn work_of(g: u32) -> Work {
    return Work(g / p.heads / p.chunks, g % p.heads, g / p.heads % p.chunks);
}
