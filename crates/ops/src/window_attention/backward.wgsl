// Attention inside windows, backward. Probabilities are computed again, twice: nothing is saved and nothing is added atomically.
//
// - `rows`: thread i owns a query row. A first sweep over the keys leaves log Σ exp of its scores and Σ_j P·dP, which it writes down
//   for `keys`; a second one adds up dq in registers. All threads meet at the same key, so their pairs are different rows of the bias
//   table: dS is added there without a conflict, key by key.
// - `keys`: thread j owns a key row and adds up dk and dv in registers, over all queries of the window. What padding gets goes to the bias.
//
// A workgroup owns 64 rows and 32 channels of one head, as in forward.wgsl, in one block of the windows: one after the other, so that
// its share of the two sums over windows needs no memory but its own. A later dispatch adds the shares in order.
// The helpers are those of forward.wgsl. The contract is in mod.rs.

const WG = 64u;
const TILE = 32u;              // tokens of a tile: of keys and values, or of queries and their incoming gradients
const WIDTH = 32u;             // channels of a row in workgroup memory
const SLOTS = 768u;            // rows of the bias table that fit into workgroup memory: windows up to 14 tokens wide
const PADDING = 0xffffffffu;   // a token that is none
const MASK = -100.0;           // what the reference adds between regions of a shifted grid
const NEVER = -1e30;           // the score of no token at all

struct Params {
    units: u32, units_each: u32, heads: u32, channels: u32,                    // a unit is a block of rows of a window
    head_width: u32, chunks: u32, window: u32, shift: u32,
    height: u32, width: u32, padded_height: u32, padded_width: u32,
    windows: u32, row_blocks: u32, block_rows: u32, has_bias: u32,
    qkv_first: u32, y_first: u32, dqkv_first: u32, partial_first: u32,         // words before the piece's first in each binding; y_first is dy's
    scale: f32, roll: u32, span: u32, pad: u32,                                // span is 2w − 1 of the bias table
}

@group(0) @binding(0) var<storage, read_write> qkv: array<f32>;       // [N, 3·C]
@group(0) @binding(1) var<storage, read_write> table: array<f32>;     // [(2w−1)², H]
@group(0) @binding(2) var<storage, read_write> qkv_bias: array<f32>;  // [3·C]; not read without has_bias
@group(0) @binding(3) var<storage, read_write> dy: array<f32>;        // [N, C]
@group(0) @binding(4) var<storage, read_write> dqkv: array<f32>;      // [N, 3·C]
@group(0) @binding(5) var<storage, read_write> stats: array<vec2f>;   // [windows, H, T] log Σ exp, Σ P·dP
@group(0) @binding(6) var<storage, read_write> partial: array<f32>;   // [blocks, (2w−1)², H] from `rows`, [blocks, 3·C] from `keys`
@group(0) @binding(7) var<uniform>             p: Params;

// 32 channels of a token; the ninth vector only puts rows into different banks.
struct Row { v: array<vec4f, 9> }
// The same in registers.
struct Lanes { a: mat4x4f, b: mat4x4f }
// Where a window is: its corner in the padded, shifted grid, and its image's first token.
struct Place { row: u32, col: u32, first: u32 }

var<workgroup> tile: array<Row, 64>;          // two rows for each token of a tile; before and after them the rows of the threads
var<workgroup> tile_token: array<u32, 32>;
var<workgroup> tile_spot: array<u32, 32>;     // see spot()
var<workgroup> tile_stats: array<vec2f, 32>;
var<workgroup> biases: array<f32, 768>;       // the head's column of the table
var<workgroup> sums: array<f32, 768>;         // its gradient

fn place(n: u32) -> Place {
    let image = n / p.windows;
    let w = n % p.windows;
    let cols = p.padded_width / p.window;
    return Place(w / cols * p.window, w % cols * p.window, image * p.height * p.width);
}

// Token t of the window: its row in the bindings, or PADDING.
fn token(at: Place, t: u32) -> u32 {
    var r = at.row + t / p.window + p.roll;
    var c = at.col + t % p.window + p.roll;
    r -= select(0u, p.padded_height, r >= p.padded_height);
    c -= select(0u, p.padded_width, c >= p.padded_width);
    return select(PADDING, at.first + r * p.width + c, r < p.height && c < p.width);
}

fn strip(at: u32, side: u32) -> u32 {
    if p.shift == 0u || at < side - p.window { return 0u; }
    return select(2u, 1u, at < side - p.shift);
}

// Token t's part of a bias table's row in the lower 24 bits, its region of the shifted grid above.
fn spot(at: Place, t: u32) -> u32 {
    let r = t / p.window;
    let c = t % p.window;
    let region = strip(at.row + r, p.padded_height) * 3u + strip(at.col + c, p.padded_width);
    return (r * p.span + c) | (region << 24u);
}

fn value(token: u32, column: u32) -> f32 {
    if token != PADDING { return qkv[p.qkv_first + token * 3u * p.channels + column]; }
    if p.has_bias != 0u { return qkv_bias[column]; }
    return 0.0;
}

// Four columns, of which the first `count` exist.
fn four(token: u32, column: u32, count: u32) -> vec4f {
    if token != PADDING && count >= 4u {
        let i = p.qkv_first + token * 3u * p.channels + column;
        return vec4f(qkv[i], qkv[i + 1u], qkv[i + 2u], qkv[i + 3u]);
    }
    var v = vec4f();
    if count > 0u { v.x = value(token, column); }
    if count > 1u { v.y = value(token, column + 1u); }
    if count > 2u { v.z = value(token, column + 2u); }
    if count > 3u { v.w = value(token, column + 3u); }
    return v;
}

// The same of dy, which padding does not have.
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

fn store(token: u32, column: u32, count: u32, v: vec4f) {
    let i = p.dqkv_first + token * 3u * p.channels + column;
    if count > 0u { dqkv[i] = v.x; }
    if count > 1u { dqkv[i + 1u] = v.y; }
    if count > 2u { dqkv[i + 2u] = v.z; }
    if count > 3u { dqkv[i + 3u] = v.w; }
}

fn fetch(row: u32) -> Lanes {
    return Lanes(
        mat4x4f(tile[row].v[0], tile[row].v[1], tile[row].v[2], tile[row].v[3]),
        mat4x4f(tile[row].v[4], tile[row].v[5], tile[row].v[6], tile[row].v[7]),
    );
}

fn keep(row: u32, x: Lanes) {
    tile[row].v[0] = x.a[0];
    tile[row].v[1] = x.a[1];
    tile[row].v[2] = x.a[2];
    tile[row].v[3] = x.a[3];
    tile[row].v[4] = x.b[0];
    tile[row].v[5] = x.b[1];
    tile[row].v[6] = x.b[2];
    tile[row].v[7] = x.b[3];
}

fn inner(x: Lanes, y: Lanes) -> f32 {
    var s = x.a[0] * y.a[0];
    s += x.a[1] * y.a[1];
    s += x.a[2] * y.a[2];
    s += x.a[3] * y.a[3];
    s += x.b[0] * y.b[0];
    s += x.b[1] * y.b[1];
    s += x.b[2] * y.b[2];
    s += x.b[3] * y.b[3];
    return (s.x + s.y) + (s.z + s.w);
}

fn add(to: Lanes, factor: f32, x: Lanes) -> Lanes {
    return Lanes(to.a + factor * x.a, to.b + factor * x.b);
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

// Which part of the work is a workgroup's: heads side by side in memory are neighbors.
struct Share { block: u32, head: u32, chunk: u32 }

fn share(g: u32) -> Share {
    return Share(g / p.heads / p.chunks, g % p.heads, g / p.heads % p.chunks);
}

@compute @workgroup_size(64)
fn rows(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let mine = share(wg.y * grid.x + wg.x);
    if mine.block * p.units_each >= p.units { return; }  // uniform: a whole workgroup leaves together
    let head = mine.head;
    let chunk = mine.chunk;

    let area = p.window * p.window;
    let span = p.span;
    let slots = span * span;
    let cached = slots <= SLOTS;
    let column = head * p.head_width + chunk * WIDTH;
    let width = min(WIDTH, p.head_width - chunk * WIDTH);
    // In a tile, eight neighboring threads fetch the 32 channels of a row.
    let quad = tid % 8u;
    let quad_column = column + 4u * quad;
    let quad_count = width - min(width, 4u * quad);

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
            tile[r].v[quad] = p.scale * four(token(at, first + min(r, count - 1u)), quad_column, quad_count);
        }
        workgroupBarrier();  // the queries are complete
        let q = fetch(tid);
        workgroupBarrier();  // everyone has its query
        for (var r = tid / 8u; r < WG; r += 8u) {
            tile[r].v[quad] = four_dy(token(at, first + min(r, count - 1u)), quad_column, quad_count);
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
                for (var r = tid / 8u; r < TILE; r += 8u) {
                    let key = token(at, min(k0 + r, area - 1u));
                    tile[r].v[quad] = four(key, p.channels + quad_column, quad_count);
                    tile[TILE + r].v[quad] = four(key, 2u * p.channels + quad_column, quad_count);
                }
                if tid < TILE {
                    let t = min(k0 + tid, area - 1u);
                    tile_token[tid] = token(at, t);
                    tile_spot[tid] = spot(at, t);
                }
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

        keep(tid, Lanes(p.scale * dq.a, p.scale * dq.b));
        workgroupBarrier();  // the rows of dq are complete
        for (var r = tid / 8u; r < count; r += 8u) {
            let to = token(at, first + r);
            if to != PADDING { store(to, quad_column, quad_count, tile[r].v[quad]); }
        }
        workgroupBarrier();  // they are stored before the next window's queries overwrite them
    }

    if cached && chunk == 0u {
        for (var s = tid; s < slots; s += WG) { partial[partial_at + s * p.heads] = sums[s]; }
    }
}

@compute @workgroup_size(64)
fn keys(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let mine = share(wg.y * grid.x + wg.x);
    if mine.block * p.units_each >= p.units { return; }  // uniform: a whole workgroup leaves together
    let head = mine.head;
    let chunk = mine.chunk;

    let area = p.window * p.window;
    let span = p.span;
    let column = head * p.head_width + chunk * WIDTH;
    let width = min(WIDTH, p.head_width - chunk * WIDTH);
    let quad = tid % 8u;
    let quad_column = column + 4u * quad;
    let quad_count = width - min(width, 4u * quad);
    let padded = p.padded_height != p.height || p.padded_width != p.width;

    if span * span <= SLOTS {
        for (var s = tid; s < span * span; s += WG) { biases[s] = table[s * p.heads + head]; }
    }

    // What padding got: the first 32 threads have a channel of k each, the others one of v.
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
            tile[r].v[quad] = four(token(at, first + min(r, count - 1u)), p.channels + quad_column, quad_count);
        }
        workgroupBarrier();  // the keys are complete
        let k = fetch(tid);
        workgroupBarrier();  // everyone has its key
        for (var r = tid / 8u; r < WG; r += 8u) {
            tile[r].v[quad] = four(token(at, first + min(r, count - 1u)), 2u * p.channels + quad_column, quad_count);
        }
        workgroupBarrier();  // the values are complete
        let v = fetch(tid);
        workgroupBarrier();  // everyone has its value before queries overwrite it

        var dk = Lanes();
        var dv = Lanes();
        for (var q0 = 0u; q0 < area; q0 += TILE) {
            for (var r = tid / 8u; r < TILE; r += 8u) {
                let query = token(at, min(q0 + r, area - 1u));
                tile[r].v[quad] = p.scale * four(query, quad_column, quad_count);
                tile[TILE + r].v[quad] = four_dy(query, quad_column, quad_count);
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
            if part == 1u { keep(tid, dk); } else { keep(tid, dv); }
            workgroupBarrier();  // the rows of dk, or dv, are complete
            for (var r = tid / 8u; r < count; r += 8u) {
                let to = token(at, first + r);
                if to != PADDING { store(to, part * p.channels + quad_column, quad_count, tile[r].v[quad]); }
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
