// The pixel that an element of a patch comes from. The kernel's Params have `side`, `height` and `width`.

struct Pixel { image: u32, channel: u32, row: u32, col: u32 }

// Pixel of element i of [images, tokens, 3, side, side].
fn pixel_of(i: u32) -> Pixel {
    let area = p.side * p.side;
    let wide = p.width / p.side;
    let tokens = p.height / p.side * wide;
    let k = i % (3u * area);      // (channel, row, column) in the patch
    let token = i / (3u * area);  // of all images
    let channel = k / area;
    let image = token / tokens;
    let t = token % tokens;
    let row = t / wide * p.side + k / p.side % p.side;
    let col = t % wide * p.side + k % p.side;
    return Pixel(image, channel, row, col);
}
