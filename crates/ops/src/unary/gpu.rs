use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View};
use esvit_graph::Result;

/// Mirrors `Params` in `forward.wgsl` and `gradient.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Params {
    len: u32,
    pad: [u32; 3],
}

/// Kernels of the unary operator `$name` and of its gradient. `$name.wgsl` beside the caller declares `value(x)` and `gradient(saved, dy)`.
macro_rules! unary_kernels {
    ($name:literal) => {{
        use esvit_gpu::Kernel;
        use $crate::unary::Params;
        const FORWARD: &[&str] = &[include_str!("../unary/forward.wgsl"), include_str!(concat!($name, ".wgsl"))];
        const GRADIENT: &[&str] = &[include_str!("../unary/gradient.wgsl"), include_str!(concat!($name, ".wgsl"))];
        static KERNELS: [Kernel; 2] =
            [Kernel::new::<Params>($name, FORWARD, "main", 2), Kernel::new::<Params>(concat!($name, "_dx"), GRADIENT, "main", 3)];
        &[&KERNELS[0], &KERNELS[1]]
    }};
}
pub(crate) use unary_kernels;

/// Records an elementwise kernel, one thread for each element, in pieces that can be bound.
pub(super) fn record(rec: &mut Recorder, kernel: &'static Kernel, views: &[&View]) -> Result<()> {
    let len = (views[0].bytes() / 4) as usize;
    for piece in rec.row_pieces(len, 4) {
        let parts: Vec<View> = views.iter().map(|view| view.rows(piece.start, piece.len(), 1)).collect();
        let params = Params { len: piece.len() as u32, pad: [0; 3] };
        rec.dispatch(kernel, &parts.iter().collect::<Vec<_>>(), &params, Grid::elements(piece.len(), 256))?;
    }
    Ok(())
}
