// Convolution in groups, dW over pieces of the rows of dy, for some images of one segment. One thread owns one weight of one piece and adds
// up its rows in order; a later dispatch adds the pieces.

const PIECE = 256u;  // rows of dy

// before, after: channels of a group of x and of y; x0, y0: where x and dy begin in their bindings; first: number of the first piece.
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;       // [images, out_height, out_width, groups, after]
@group(0) @binding(1) var<storage, read_write> x: array<f32>;        // [images, height, width, groups, before]
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;  // [pieces, groups, after, before, kernel²]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let outs = p.groups * p.after;
    let ins = p.groups * p.before;
    let taps = p.kernel * p.kernel;
    let weights = outs * p.before * taps;
    let weight = i % weights;
    let piece = i / weights;
    let c = weight / taps / p.before;
    let seen = c / p.after * p.before + weight / taps % p.before;
    let ky = weight % taps / p.kernel;
    let kx = weight % taps % p.kernel;
    var sum = 0.0;
    for (var out = piece * PIECE; out < min(p.rows, (piece + 1u) * PIECE); out++) {
        // Before the grid begins these wrap around to far beyond its end.
        let col = out % p.out_width * p.stride + kx - p.padding;
        let row = out / p.out_width % p.out_height * p.stride + ky - p.padding;
        let image = out / p.out_width / p.out_height;
        if row < p.height && col < p.width {
            sum += dy[p.y0 + out * outs + c] * x[p.x0 + ((image * p.height + row) * p.width + col) * ins + seen];
        }
    }
    partial[(p.first + piece) * weights + weight] = sum;
}
