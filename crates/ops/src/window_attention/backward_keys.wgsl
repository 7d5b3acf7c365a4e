// Attention inside windows, backward: dk and dv. Thread j owns a key row and adds up dk and dv in registers, over all queries of the
// window. Gradients of padding go to the bias. Runs after backward_queries.wgsl. The contract is in mod.rs.

var<workgroup> tile_stats: array<vec2f, 32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let mine = work_of(wg.y * grid.x + wg.x);
    if mine.block * p.units_each >= p.units { return; }  // uniform: a whole workgroup leaves together
    let head = mine.head;
    let chunk = mine.chunk;

    let area = p.window * p.window;
    let span = p.span;
    let column = head * p.head_width + chunk * WIDTH;
    let width = min(WIDTH, p.head_width - chunk * WIDTH);
    let quad = quad_of(tid, head, chunk);
    let padded = p.padded_height != p.height || p.padded_width != p.width;

    if span * span <= SLOTS { load_biases(tid, head); }

    // The gradient of padding: the first 32 threads have a channel of k each, the others one of v.
    var to_bias = 0.0;
    let end = min(p.units, (mine.block + 1u) * p.units_each);
    for (var unit = mine.block * p.units_each; unit < end; unit++) {
        let window = unit / p.row_blocks;
        let at = place(window);
        let first = unit % p.row_blocks * p.block_rows;
        let count = min(p.block_rows, area - first);
        let my_row = first + min(tid, count - 1u);
        let my_token = token(at, my_row);
        let my_spot = spot(at, my_row);
        let my_region = my_spot >> 24u;
        let my_slot = (span / 2u) * (span + 1u) - (my_spot & 0xffffffu);

        for (var r = tid / 8u; r < WG; r += 8u) {
            tile[r].v[quad.index] = four(token(at, first + min(r, count - 1u)), p.channels + quad.column, quad.count);
        }
        workgroupBarrier();  // the keys are complete
        let k = fetch(tid);
        workgroupBarrier();  // everyone has its key
        for (var r = tid / 8u; r < WG; r += 8u) {
            tile[r].v[quad.index] = four(token(at, first + min(r, count - 1u)), 2u * p.channels + quad.column, quad.count);
        }
        workgroupBarrier();  // the values are complete
        let v = fetch(tid);
        workgroupBarrier();  // everyone has its value before queries overwrite it

        var dk = Lanes();
        var dv = Lanes();
        for (var q0 = 0u; q0 < area; q0 += TILE) {
            for (var r = tid / 8u; r < TILE; r += 8u) {
                let query = token(at, min(q0 + r, area - 1u));
                tile[r].v[quad.index] = p.scale * four(query, quad.column, quad.count);
                tile[TILE + r].v[quad.index] = four_dy(query, quad.column, quad.count);
            }
            if tid < TILE {
                let t = min(q0 + tid, area - 1u);
                tile_token[tid] = token(at, t);
                tile_spot[tid] = spot(at, t);
                tile_stats[tid] = stats[(window * p.heads + head) * area + t];
            }
            workgroupBarrier();  // the tile is complete
            let queries_here = min(TILE, area - q0);
            for (var i = 0u; i < queries_here; i++) {
                let q = fetch(i);
                let g = fetch(TILE + i);
                let about = tile_spot[i];
                var s = inner(q, k) + extra((about & 0xffffffu) + my_slot, (about >> 24u) == my_region, head);
                var dp = inner(g, v);
                if p.chunks > 1u {
                    let r = rest(tile_token[i], my_token, head, chunk);
                    s += p.scale * r.x;
                    dp += r.y;
                }
                let prob = exp(s - tile_stats[i].x);
                dv = add(dv, prob, g);
                dk = add(dk, prob * (dp - tile_stats[i].y), q);
            }
            workgroupBarrier();  // everyone has read the tile before the next one, or dk, overwrites it
        }

        for (var part = 1u; part < 3u; part++) {
            if part == 1u { put(tid, dk); } else { put(tid, dv); }
            workgroupBarrier();  // the rows of dk, or dv, are complete
            for (var r = tid / 8u; r < count; r += 8u) {
                let to = token(at, first + r);
                if to != PADDING { store(to, part * p.channels + quad.column, quad.count, tile[r].v[quad.index]); }
            }
            if padded && tid / 32u == part - 1u {
                for (var r = 0u; r < count; r++) {
                    if token(at, first + r) == PADDING { to_bias += tile[r].v[tid % 32u / 4u][tid % 4u]; }
                }
            }
            workgroupBarrier();  // they are stored before other rows overwrite them
        }
    }

    // The queries of padding have no gradient.
    if p.has_bias != 0u && tid % 32u < width {
        let to = p.partial_first + mine.block * 3u * p.channels + column + tid % 32u;
        partial[to + (1u + tid / 32u) * p.channels] = to_bias;
        if tid < 32u { partial[to] = 0.0; }
    }
}
