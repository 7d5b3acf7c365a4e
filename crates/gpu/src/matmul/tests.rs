//! Every layout, size and kernel against the plain product in double precision.

// What is skipped is told with its reason.
#![allow(clippy::print_stderr)]

use super::*;
use crate::Gpu;

fn gpu() -> Option<Gpu> {
    match Gpu::open() {
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var_os("REQUIRE_GPU").is_some_and(|v| v == "1") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn upload(gpu: &Gpu, values: &[f32]) -> View {
    let view = gpu.allocate("a test's operand", 4 * values.len() as u64).unwrap();
    gpu.upload(&view, bytemuck::cast_slice(values));
    view
}

/// Values in ±1 without a pattern: sums of their products do not cancel.
fn noise(len: usize, salt: u32) -> Vec<f32> {
    let hash = |i: u32| (i ^ (i >> 15)).wrapping_mul(0x2c1b_3c6d);
    (0..len as u32).map(|i| hash(hash(i.wrapping_add(salt << 24))) as i32 as f32 / 2f32.powi(31)).collect()
}

/// Distance from the plain product of all four layouts, with a bias and with a sum, relative to its length.
fn worst(gpu: &Gpu, limit: u64, tiled: TiledKernel, [m, n, k]: [usize; 3]) -> f64 {
    let mut worst = 0.0f64;
    let (a, b, bias, before) = (noise(m * k, 1), noise(k * n, 2), noise(n, 3), noise(m * n, 4));
    for layout in 0..4 {
        let (at, bt) = (layout & 1 == 1, layout & 2 == 2);
        let of = |view, transposed| GpuOperand { view, transposed };
        let (va, vb, vbias, c) = (upload(gpu, &a), upload(gpu, &b), upload(gpu, &bias), upload(gpu, &before));
        let product = GpuProduct::new(of(&va, at), of(&vb, bt), &c, [m, n, k]).bias(Some(&vbias)).adding(layout == 2);
        let mut rec = Recorder::with_bindings(gpu, limit);
        product.record_with(&mut rec, tiled).unwrap();
        rec.finish().unwrap().run(gpu).unwrap();
        let got = gpu.read_f32(&c).unwrap();
        let (mut distance, mut size) = (0.0, 0.0);
        for i in 0..m {
            for j in 0..n {
                let mut want = f64::from(bias[j]) + if layout == 2 { f64::from(before[i * n + j]) } else { 0.0 };
                for l in 0..k {
                    let (x, y) = (if at { a[l * m + i] } else { a[i * k + l] }, if bt { b[j * k + l] } else { b[l * n + j] });
                    want += f64::from(x) * f64::from(y);
                }
                distance += (f64::from(got[i * n + j]) - want).powi(2);
                size += want * want;
            }
        }
        worst = worst.max((distance / size).sqrt());
    }
    worst
}

#[test]
fn products_agree_with_the_plain_one() {
    let Some(gpu) = gpu() else { return };
    // Smaller than a tile; no multiple of anything; an inner axis that is cut; operands and results that are cut.
    for (limit, size) in [(1 << 26, [3, 5, 7]), (1 << 26, [130, 67, 33]), (1 << 26, [40, 20, 700]), (80 << 10, [150, 300, 170])] {
        let off = worst(&gpu, limit, HalfProduct::Absent.kernel(), size);
        assert!(off < 1e-5, "{size:?}: off by {off:e}");
        if gpu.adapter().half() != HalfProduct::Absent {
            let off = worst(&gpu, limit, gpu.adapter().half().kernel(), size);
            assert!(off < 1e-3 && off > 1e-5, "{size:?} in half precision: off by {off:e}");
        }
    }
}

/// The cooperative kernel with its matrix operations written out for adapters without matrix units: a thread of a subgroup computes eight
/// elements of each block. What is left to hardware is how it does the same.
fn written_out() -> &'static Kernel {
    let mut source = COOPERATIVE.source().replace("enable wgpu_cooperative_matrix;\n", "");
    for (from, to) in [
        ("coopLoadT<coop_mat16x16<f16, A>>(&tile_a[", "of_rows("),
        ("coopLoad<coop_mat16x16<f16, A>>(&tile_a[", "of_cols("),
        ("coopLoadT<coop_mat16x16<f16, B>>(&tile_b[", "of_rows("),
        ("coopLoad<coop_mat16x16<f16, B>>(&tile_b[", "of_cols("),
        ("], WIDE)", ", WIDE)"),
        ("], NARROW)", ", NARROW)"),
        ("&blocks[mine], 16u", "mine"),
        ("coop_mat16x16<f32, C>", "Sums"),
        ("coop_mat16x16<f16, A>", "Tile"),
        ("coop_mat16x16<f16, B>", "Tile"),
        ("    @builtin(subgroup_id) subgroup: u32,\n", ""),
        ("let my_row = ", "let subgroup = tid / 32u;\n    lane = tid % 32u;\n    let my_row = "),
    ] {
        assert!(source.contains(from), "{from}");
        source = source.replace(from, to);
    }
    source += "
        struct Tile { first: u32, row: u32, col: u32 }
        struct Sums { v: array<f32, 8> }
        var<private> lane: u32;
        fn of_rows(first: u32, stride: u32) -> Tile { return Tile(first, stride, 1u); }
        fn of_cols(first: u32, stride: u32) -> Tile { return Tile(first, 1u, stride); }
        fn coopMultiplyAdd(a: Tile, b: Tile, c: Sums) -> Sums {
            var sums = c;
            for (var i = 0u; i < 8u; i++) {
                let row = a.first + (8u * lane + i) / 16u * a.row;
                let col = b.first + (8u * lane + i) % 16u * b.col;
                for (var k = 0u; k < 16u; k++) { sums.v[i] += f32(tile_a[row + k * a.col]) * f32(tile_b[col + k * b.row]); }
            }
            return sums;
        }
        fn coopStoreT(c: Sums, first: u32) {
            var sums = c;
            for (var i = 0u; i < 8u; i++) { blocks[first + 8u * lane + i] = sums.v[i]; }
        }
    ";
    let files: &[&str] = Box::leak(Box::new([&*source.leak()]));
    let kernel = Kernel::new::<Params>("matmul_cooperative, written out", files, "main", 4).needing(Needs::HalfPrecision);
    Box::leak(Box::new(kernel))
}

#[test]
fn the_cooperative_kernel_finds_its_blocks() {
    let Some(gpu) = gpu() else { return };
    if gpu.adapter().half() == HalfProduct::Absent {
        eprintln!("skipped: {} does not compute in half precision", gpu.adapter().name);
        return;
    }
    let tiled = (written_out(), HalfProduct::Cooperative.kernel().1);
    for (limit, size) in [(1 << 26, [130, 67, 33]), (1 << 26, [20, 140, 600])] {
        let off = worst(&gpu, limit, tiled, size);
        assert!(off < 1e-3 && off > 1e-5, "{size:?}: off by {off:e}");
    }
}
