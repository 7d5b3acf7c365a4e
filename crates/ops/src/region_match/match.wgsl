// match = argmax_j s_i·t_j/|t_j|, the first of equals: a student row's own length does not change it. A workgroup owns 16 tokens of an
// image of a student crop, and goes through the image's tokens of one global crop 64 at a time; its 16 x 16 threads own 1 x 4 products
// each. Channels pass through workgroup memory, 16 deep. The contract is in mod.rs.

const TOKENS = 16u;
const CANDIDATES = 64u;
const DEPTH = 16u;
const S_ROW = 17u;  // floats of a row in workgroup memory: more than the tile has, so that columns fall into different banks
const T_ROW = 68u;
const EPS = 1e-12;

// student_at, teacher_at, matches_at: where a binding's contents begin.
struct Params {
    pictures: u32,    // images of all student crops of the dispatch
    images: u32,      // images of the global crop: pictures repeat them
    tokens: u32,      // of a picture
    candidates: u32,  // tokens of an image of the global crop
    cols: u32,
    targets: u32,     // matches of a token, and which of them this one is
    slot: u32,
    first: u32,       // row of the whole teacher matrix where the binding's contents begin
    student_at: u32,
    teacher_at: u32,
    matches_at: u32,
    pad: u32,
}

@group(0) @binding(0) var<storage, read_write> student: array<f32>;  // [pictures·tokens, cols]
@group(0) @binding(1) var<storage, read_write> teacher: array<f32>;  // [images·candidates, cols]
@group(0) @binding(2) var<storage, read_write> matches: array<u32>;  // [pictures·tokens, targets]
@group(0) @binding(3) var<uniform>             p: Params;

var<workgroup> tile_s: array<f32, 272>;    // [DEPTH, S_ROW]
var<workgroup> tile_t: array<f32, 1088>;   // [DEPTH, T_ROW]
var<workgroup> best_cos: array<f32, 256>;  // [TOKENS, 16]
var<workgroup> best_at: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let blocks = (p.tokens + TOKENS - 1u) / TOKENS;
    let id = wg.y * grid.x + wg.x;
    let picture = id / blocks;
    if picture >= p.pictures { return; }
    let image = picture % p.images;
    let token0 = id % blocks * TOKENS;
    let my_token = tid / 16u;
    let my_col = (tid % 16u) * 4u;

    var best = -3.4e38;
    var best_j = 0u;
    for (var j0 = 0u; j0 < p.candidates; j0 += CANDIDATES) {
        var dots = vec4f(0.0);
        var squares = vec4f(0.0);
        for (var c0 = 0u; c0 < p.cols; c0 += DEPTH) {
            // Neighboring threads fetch neighboring addresses.
            let c = c0 + tid % DEPTH;
            let row = tid / DEPTH;
            var s = 0.0;
            if token0 + row < p.tokens && c < p.cols { s = student[p.student_at + (picture * p.tokens + token0 + row) * p.cols + c]; }
            tile_s[tid % DEPTH * S_ROW + row] = s;
            for (var i = 0u; i < 4u; i++) {
                let j = row + i * 16u;
                var t = 0.0;
                if j0 + j < p.candidates && c < p.cols { t = teacher[p.teacher_at + (image * p.candidates + j0 + j) * p.cols + c]; }
                tile_t[tid % DEPTH * T_ROW + j] = t;
            }
            workgroupBarrier();  // the tiles are complete
            for (var k = 0u; k < DEPTH; k++) {
                let at = k * T_ROW + my_col;
                let t4 = vec4f(tile_t[at], tile_t[at + 1u], tile_t[at + 2u], tile_t[at + 3u]);
                dots += tile_s[k * S_ROW + my_token] * t4;
                squares += t4 * t4;
            }
            workgroupBarrier();  // everyone has read them before they are overwritten
        }
        let cosines = dots / max(sqrt(squares), vec4f(EPS));
        for (var i = 0u; i < 4u; i++) {
            let j = j0 + my_col + i;
            if j < p.candidates && cosines[i] > best {
                best = cosines[i];
                best_j = j;
            }
        }
    }
    best_cos[tid] = best;
    best_at[tid] = best_j;
    workgroupBarrier();  // the best of every thread are there
    let token = token0 + my_token;
    if tid % 16u == 0u && token < p.tokens {
        for (var other = tid + 1u; other < tid + 16u; other++) {
            let cos = best_cos[other];
            if cos > best || (cos == best && best_at[other] < best_j) {
                best = cos;
                best_j = best_at[other];
            }
        }
        matches[p.matches_at + (picture * p.tokens + token) * p.targets + p.slot] = p.first + image * p.candidates + best_j;
    }
}
