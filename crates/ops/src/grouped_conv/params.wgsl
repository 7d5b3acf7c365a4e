// Parameters of a convolution in groups, of all its kernels.

struct Params {
    len: u32, groups: u32, before: u32, after: u32,
    kernel: u32, stride: u32, padding: u32, height: u32,
    width: u32, out_height: u32, out_width: u32, x0: u32,
    y0: u32, rows: u32, first: u32, pad0: u32,
}
