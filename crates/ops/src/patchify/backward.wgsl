// Rows of patches back to float pixels, for some images of one segment. One thread owns one pixel's channel; those beyond the last whole
// patch get zero. The contract is in mod.rs.

// side: of a patch; height, width: in pixels; x0, y0: where the operands begin in their bindings.
struct Params { len: u32, side: u32, height: u32, width: u32, x0: u32, y0: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> dy: array<f32>;  // [images, tokens, 3, side, side]
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;  // [images, 3, height, width]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let high = p.height / p.side;
    let wide = p.width / p.side;
    let col = i % p.width;
    let line = i / p.width;
    let row = line % p.height;
    let plane = line / p.height;
    let token_row = row / p.side;
    let token_col = col / p.side;
    var v = 0.0;
    if token_row < high && token_col < wide {
        let token = (plane / 3u * high + token_row) * wide + token_col;
        v = dy[p.y0 + ((token * 3u + plane % 3u) * p.side + row % p.side) * p.side + col % p.side];
    }
    dx[p.x0 + i] = v;
}
