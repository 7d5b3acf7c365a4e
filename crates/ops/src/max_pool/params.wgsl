// Parameters of a sliding maximum, of both its kernels.

struct Params {
    len: u32, cols: u32, kernel: u32, stride: u32,
    padding: u32, height: u32, width: u32, out_height: u32,
    out_width: u32, x0: u32, y0: u32, pad: u32,
}
