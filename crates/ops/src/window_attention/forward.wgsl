// Attention inside windows, forward. A workgroup owns rows of queries, see rows.wgsl: the query of a thread, its running maximum and sum,
// and its part of y stay in registers, so the scores never leave them. Rows are gathered by index: a window is never copied. The contract
// is in mod.rs.

@group(0) @binding(3) var<storage, read_write> y: array<f32>;         // [N, C]
@group(0) @binding(4) var<uniform>             p: Params;

// q·k over the channels of the head that are not in the workgroup's chunk.
fn rest(query: u32, key: u32, head: u32, chunk: u32) -> f32 {
    var s = 0.0;
    for (var c = 0u; c < p.head_width; c++) {
        if c / WIDTH != chunk {
            let column = head * p.head_width + c;
            s += value(query, column) * value(key, p.channels + column);
        }
    }
    return s;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let g = wg.y * grid.x + wg.x;
    if g >= p.units * p.heads * p.chunks { return; }  // uniform: a whole workgroup leaves together
    let head = g % p.heads;
    let chunk = g / p.heads % p.chunks;
    let unit = g / p.heads / p.chunks;

    let area = p.window * p.window;
    let span = p.span;
    let cached = span * span <= SLOTS;
    let quad = quad_of(tid, head, chunk);

    let at = place(unit / p.row_blocks);
    let first = unit % p.row_blocks * p.block_rows;
    let rows = min(p.block_rows, area - first);
    // Threads beyond the last row repeat it, and store nothing.
    let mine = first + min(tid, rows - 1u);
    let my_token = token(at, mine);
    let my_spot = spot(at, mine);
    let my_region = my_spot >> 24u;
    let my_slot = (my_spot & 0xffffffu) + (span / 2u) * (span + 1u);

    if cached { load_biases(tid, head); }
    for (var r = tid / 8u; r < WG; r += 8u) {
        tile[r].v[quad.index] = p.scale * four(token(at, first + min(r, rows - 1u)), quad.column, quad.count);
    }
    workgroupBarrier();  // the queries are complete
    let q = fetch(tid);
    workgroupBarrier();  // everyone has its query before keys overwrite it

    var out = Lanes();
    var top = NEVER;
    var sum = 0.0;
    for (var k0 = 0u; k0 < area; k0 += TILE) {
        load_keys(tid, at, k0, quad);
        workgroupBarrier();  // the tile is complete
        let count = min(TILE, area - k0);
        for (var j = 0u; j < count; j += 4u) {
            var s = vec4f(inner(q, fetch(j)), inner(q, fetch(j + 1u)), inner(q, fetch(j + 2u)), inner(q, fetch(j + 3u)));
            if p.chunks > 1u {
                s += p.scale * vec4f(
                    rest(my_token, tile_token[j], head, chunk),
                    rest(my_token, tile_token[j + 1u], head, chunk),
                    rest(my_token, tile_token[j + 2u], head, chunk),
                    rest(my_token, tile_token[j + 3u], head, chunk),
                );
            }
            let spots = vec4u(tile_spot[j], tile_spot[j + 1u], tile_spot[j + 2u], tile_spot[j + 3u]);
            let slots = vec4u(my_slot) - (spots & vec4u(0xffffffu));
            if cached {
                s += vec4f(biases[slots.x], biases[slots.y], biases[slots.z], biases[slots.w]);
            } else {
                let i = slots * p.heads + head;
                s += vec4f(table[i.x], table[i.y], table[i.z], table[i.w]);
            }
            s += select(vec4f(), vec4f(MASK), (spots >> vec4u(24u)) != vec4u(my_region));
            s = select(vec4f(NEVER), s, vec4u(j, j + 1u, j + 2u, j + 3u) < vec4u(count));

            let higher = max(max(s.x, s.y), max(s.z, s.w));
            if higher > top {
                let shrink = exp(top - higher);
                out = Lanes(shrink * out.a, shrink * out.b);
                sum *= shrink;
                top = higher;
            }
            let e = exp(s - top);
            sum += (e.x + e.y) + (e.z + e.w);
            out = add(out, e.x, fetch(TILE + j));
            out = add(out, e.y, fetch(TILE + j + 1u));
            out = add(out, e.z, fetch(TILE + j + 2u));
            out = add(out, e.w, fetch(TILE + j + 3u));
        }
        workgroupBarrier();  // everyone has read the tile before the next one, or y, overwrites it
    }

    let norm = 1.0 / sum;
    put(tid, Lanes(norm * out.a, norm * out.b));
    workgroupBarrier();  // the rows of y are complete
    for (var r = tid / 8u; r < rows; r += 8u) {
        let to = token(at, first + r);
        if to != PADDING {
            let v = tile[r].v[quad.index];
            let i = p.y_first + to * p.channels + quad.column;
            if quad.count > 0u { y[i] = v.x; }
            if quad.count > 1u { y[i + 1u] = v.y; }
            if quad.count > 2u { y[i + 2u] = v.z; }
            if quad.count > 3u { y[i + 3u] = v.w; }
        }
    }
}
