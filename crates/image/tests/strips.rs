//! The evaluation transform of pictures far longer than they are wide, against digests of Pillow's pixels.
//!
//! Recipe, Pillow 13.0 and NumPy: sample `i` of the picture is `(2654435761 · i mod 2³²) >> 24`;
//! `image.resize((full_width, full_height), BICUBIC).crop((left, top, left + 224, top + 224))`; FNV-1a of the bytes.

use esvit_image::{CropPlan, CropWindow, ResampleFilter, RgbImage, render};

struct Strip {
    size: (u32, u32),
    full: (u32, u32),
    at: (u32, u32),
    digest: u64,
}

const STRIPS: [Strip; 4] = [
    Strip { size: (30, 2400), full: (256, 20480), at: (16, 10128), digest: 0x4801_442e_d3bb_89ad },
    Strip { size: (2400, 30), full: (20480, 256), at: (10128, 16), digest: 0xaf8d_7d86_ba2f_1553 },
    // Shrinking the columns first.
    Strip { size: (300, 2400), full: (256, 2048), at: (16, 912), digest: 0x8958_e6a8_22f1_e19d },
    Strip { size: (33, 700), full: (256, 5430), at: (16, 2603), digest: 0xb7a2_077b_348b_95f5 },
];

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_center_of_a_strip_is_pillows() {
    for Strip { size: (width, height), full: (full_width, full_height), at: (left, top), digest } in STRIPS {
        let pixels = (0..width * height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let image = RgbImage::new(width, height, pixels).unwrap();
        let plan = CropPlan {
            left: 0,
            top: 0,
            width,
            height,
            out_width: 224,
            out_height: 224,
            window: Some(CropWindow { full_width, full_height, left, top }),
            filter: ResampleFilter::Bicubic,
            flip: false,
            operations: Vec::new(),
        };
        let mut out = vec![0; plan.out_bytes()];
        render(&image, &plan, &mut out).unwrap();
        assert_eq!(fnv1a(&out), digest, "{width} x {height}");
    }
}
