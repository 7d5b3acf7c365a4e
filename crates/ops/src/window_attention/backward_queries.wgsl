// Attention inside windows, backward: dq and sums of the table's gradient. Thread i owns a query row. A first sweep over the keys leaves
// log Σ exp of its scores and Σ_j P·dP, which it writes down for backward_keys.wgsl; a second one adds up dq in registers. All threads meet
// at the same key, so their pairs are different rows of the bias table: dS is added there without a conflict, key by key. The contract is
// in mod.rs.

var<workgroup> sums: array<f32, 768>;         // gradient of the head's column of the table

// Adds dS of a pair. All threads are at the same key, each with a query of its own: no two have the same slot.
fn add_to_table(live: bool, slot: u32, partial_at: u32, ds: f32) {
    let span = p.span;
    if span * span <= SLOTS {
        if live { sums[slot] += ds; }
        workgroupBarrier();  // with the next key, another thread can have this slot
    } else {
        if live { partial[partial_at + slot * p.heads] += ds; }
        storageBarrier();  // likewise
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let mine = work_of(wg.y * grid.x + wg.x);
    if mine.block * p.units_each >= p.units { return; }  // uniform: a whole workgroup leaves together
    let head = mine.head;
    let chunk = mine.chunk;

    let area = p.window * p.window;
    let span = p.span;
    let slots = span * span;
    let cached = slots <= SLOTS;
    let quad = quad_of(tid, head, chunk);

    // A table too large for workgroup memory is read, and its gradient added up, where it is.
    let partial_at = p.partial_first + mine.block * slots * p.heads + head;
    if cached {
        for (var s = tid; s < slots; s += WG) {
            biases[s] = table[s * p.heads + head];
            sums[s] = 0.0;
        }
    } else if chunk == 0u {
        for (var s = tid; s < slots; s += WG) { partial[partial_at + s * p.heads] = 0.0; }
        storageBarrier();  // every slot is zero before another thread adds to it
    }

    let end = min(p.units, (mine.block + 1u) * p.units_each);
    for (var unit = mine.block * p.units_each; unit < end; unit++) {
        let window = unit / p.row_blocks;
        let at = place(window);
        let first = unit % p.row_blocks * p.block_rows;
        let count = min(p.block_rows, area - first);
        // Threads beyond the last row repeat it, and store nothing.
        let my_row = first + min(tid, count - 1u);
        let my_token = token(at, my_row);
        let my_spot = spot(at, my_row);
        let my_region = my_spot >> 24u;
        let my_slot = (my_spot & 0xffffffu) + (span / 2u) * (span + 1u);
        let live = tid < count && my_token != PADDING;

        for (var r = tid / 8u; r < WG; r += 8u) {
            tile[r].v[quad.index] = p.scale * four(token(at, first + min(r, count - 1u)), quad.column, quad.count);
        }
        workgroupBarrier();  // the queries are complete
        let q = fetch(tid);
        workgroupBarrier();  // everyone has its query
        for (var r = tid / 8u; r < WG; r += 8u) {
            tile[r].v[quad.index] = four_dy(token(at, first + min(r, count - 1u)), quad.column, quad.count);
        }
        workgroupBarrier();  // the gradients are complete
        let g = fetch(tid);
        workgroupBarrier();  // everyone has its gradient before keys overwrite it

        var dq = Lanes();
        var top = NEVER;
        var sum = 0.0;
        var along = 0.0;
        var log_sum = 0.0;
        for (var sweep = 0u; sweep < 2u; sweep++) {
            for (var k0 = 0u; k0 < area; k0 += TILE) {
                load_keys(tid, at, k0, quad);
                workgroupBarrier();  // the tile is complete
                let keys_here = min(TILE, area - k0);
                for (var j = 0u; j < keys_here; j += 4u) {
                    let spots = vec4u(tile_spot[j], tile_spot[j + 1u], tile_spot[j + 2u], tile_spot[j + 3u]);
                    let slot = vec4u(my_slot) - (spots & vec4u(0xffffffu));
                    let same = (spots >> vec4u(24u)) == vec4u(my_region);
                    let k = fetch(j);
                    let k1 = fetch(j + 1u);
                    let k2 = fetch(j + 2u);
                    let k3 = fetch(j + 3u);
                    var s = vec4f(inner(q, k), inner(q, k1), inner(q, k2), inner(q, k3));
                    s += vec4f(
                        extra(slot.x, same.x, head),
                        extra(slot.y, same.y, head),
                        extra(slot.z, same.z, head),
                        extra(slot.w, same.w, head),
                    );
                    var dp = vec4f(
                        inner(g, fetch(TILE + j)),
                        inner(g, fetch(TILE + j + 1u)),
                        inner(g, fetch(TILE + j + 2u)),
                        inner(g, fetch(TILE + j + 3u)),
                    );
                    if p.chunks > 1u {
                        let r0 = rest(my_token, tile_token[j], head, chunk);
                        let r1 = rest(my_token, tile_token[j + 1u], head, chunk);
                        let r2 = rest(my_token, tile_token[j + 2u], head, chunk);
                        let r3 = rest(my_token, tile_token[j + 3u], head, chunk);
                        s += p.scale * vec4f(r0.x, r1.x, r2.x, r3.x);
                        dp += vec4f(r0.y, r1.y, r2.y, r3.y);
                    }
                    s = select(vec4f(NEVER), s, vec4u(j, j + 1u, j + 2u, j + 3u) < vec4u(keys_here));

                    if sweep == 0u {
                        let higher = max(max(s.x, s.y), max(s.z, s.w));
                        if higher > top {
                            let shrink = exp(top - higher);
                            sum *= shrink;
                            along *= shrink;
                            top = higher;
                        }
                        let e = exp(s - top);
                        sum += (e.x + e.y) + (e.z + e.w);
                        along += dot(e, dp);
                    } else {
                        let ds = exp(s - log_sum) * (dp - along);
                        dq = add(dq, ds.x, k);
                        dq = add(dq, ds.y, k1);
                        dq = add(dq, ds.z, k2);
                        dq = add(dq, ds.w, k3);
                        if chunk == 0u {
                            add_to_table(live, slot.x, partial_at, ds.x);
                            add_to_table(live && j + 1u < keys_here, slot.y, partial_at, ds.y);
                            add_to_table(live && j + 2u < keys_here, slot.z, partial_at, ds.z);
                            add_to_table(live && j + 3u < keys_here, slot.w, partial_at, ds.w);
                        }
                    }
                }
                workgroupBarrier();  // everyone has read the tile before the next one, or dq, overwrites it
            }
            if sweep == 0u {
                log_sum = top + log(sum);
                along = along / sum;
            }
        }
        if chunk == 0u && tid < count { stats[(window * p.heads + head) * area + my_row] = vec2f(log_sum, along); }

        put(tid, Lanes(p.scale * dq.a, p.scale * dq.b));
        workgroupBarrier();  // the rows of dq are complete
        for (var r = tid / 8u; r < count; r += 8u) {
            let to = token(at, first + r);
            if to != PADDING { store(to, quad.column, quad.count, tile[r].v[quad.index]); }
        }
        workgroupBarrier();  // they are stored before the next window's queries overwrite them
    }

    if cached && chunk == 0u {
        for (var s = tid; s < slots; s += WG) { partial[partial_at + s * p.heads] = sums[s]; }
    }
}

