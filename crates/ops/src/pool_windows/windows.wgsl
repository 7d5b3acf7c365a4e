// Windows of the grid, and the rows pooled over them: operands that the kernels of this folder share.

struct Params {
    images: u32, globals: u32, height: u32, width: u32,      // images of one segment, and their grid
    window: u32, heads: u32, cols: u32, is_learned: u32,
    kv0: u32, y0: u32, out0: u32, what: u32,                 // where the operands begin in their bindings
    len: u32, accumulate: u32, pad0: u32, pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> kv: array<f32>;           // [images, globals + tokens, 2·C]
@group(0) @binding(1) var<storage, read_write> key_scale: array<f32>;    // [heads]
@group(0) @binding(2) var<storage, read_write> value_scale: array<f32>;  // [heads]
@group(0) @binding(3) var<storage, read_write> weight: array<f32>;       // [window²]; not read unless learned
@group(0) @binding(4) var<storage, read_write> bias: array<f32>;         // [1]; the same

fn weight_of(l: u32) -> f32 {
    if p.is_learned != 0u { return weight[l]; }
    return 1.0 / f32(p.window * p.window);
}

// Token l of window m: its row in the image, or none.
fn row_of(m: u32, l: u32) -> u32 {
    let wide = (p.width + p.window - 1u) / p.window;
    let row = m / wide * p.window + l / p.window;
    let col = m % wide * p.window + l % p.window;
    return select(0xffffffffu, p.globals + row * p.width + col, row < p.height && col < p.width);
}

fn pooled(image: u32, m: u32, c: u32) -> f32 {
    var sum = 0.0;
    if p.is_learned != 0u { sum = bias[0]; }
    for (var l = 0u; l < p.window * p.window; l++) {
        let row = row_of(m, l);
        if row != 0xffffffffu { sum += weight_of(l) * kv[p.kv0 + (image * rows() + row) * p.cols + c]; }
    }
    return sum;
}

fn rows() -> u32 { return p.globals + p.height * p.width; }
fn windows() -> u32 { return (p.height + p.window - 1u) / p.window * ((p.width + p.window - 1u) / p.window); }
