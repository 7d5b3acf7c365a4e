//! Every photograph of the test data against what Pillow read: good, unusual and broken files.

mod common;

use std::fs;
use std::path::PathBuf;

use esvit_image::{ImageError, Limits, decode, info};

/// One row of the manifest.
struct Photo {
    path: String,
    /// `ok`, `tolerant` (Pillow reads it only when told to accept truncated images) or `error`.
    pillow: String,
    mode: String,
    width: Option<u32>,
    height: Option<u32>,
    mean: Option<[f64; 3]>,
}

fn photos() -> Option<(PathBuf, Vec<Photo>)> {
    let folder = common::folder("ESVIT_DATA", "../shared/data", "photos")?;
    let manifest = fs::read_to_string(folder.join("manifest.tsv")).unwrap();
    let mut lines = manifest.lines();
    let names: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let rows: Vec<Photo> = lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let cell = |name: &str| cells[names.iter().position(|&n| n == name).unwrap()];
            let mean: Vec<f64> = cell("mean_rgb").split_whitespace().map(|m| m.parse().unwrap()).collect();
            Photo {
                path: cell("path").to_owned(),
                pillow: cell("pillow").to_owned(),
                mode: cell("mode").to_owned(),
                width: cell("width").parse().ok(),
                height: cell("height").parse().ok(),
                mean: mean.try_into().ok(),
            }
        })
        .filter(|photo| ["plain/", "odd/", "broken/"].iter().any(|group| photo.path.starts_with(group)))
        .collect();
    assert!(!rows.is_empty());
    Some((folder, rows))
}

fn mean(pixels: &[u8]) -> [f64; 3] {
    let count = (pixels.len() / 3) as f64;
    [0, 1, 2].map(|c| pixels.iter().skip(c).step_by(3).map(|&x| f64::from(x)).sum::<f64>() / count)
}

/// Files whose mean is not Pillow's, on purpose.
fn differs(photo: &Photo) -> bool {
    // Pillow clips 16-bit gray to white; the high byte is kept here.
    photo.mode == "I;16"
}

#[test]
fn whole_files_have_pillows_size_and_mean() {
    let Some((folder, photos)) = photos() else { return };
    let mut wrong = Vec::new();
    for photo in photos.iter().filter(|photo| photo.pillow == "ok" && !photo.path.starts_with("broken/")) {
        let bytes = fs::read(folder.join(&photo.path)).unwrap();
        let (width, height) = (photo.width.unwrap(), photo.height.unwrap());
        match info(&bytes) {
            Ok(info) if (info.width, info.height) == (width, height) => {}
            other => wrong.push(format!("{}: info is {other:?}", photo.path)),
        }
        let image = match decode(&bytes, &Limits::default()) {
            Ok(image) => image,
            Err(error) => {
                wrong.push(format!("{}: {error}", photo.path));
                continue;
            }
        };
        let (got, wanted) = (mean(image.pixels()), photo.mean.unwrap());
        let far = got.iter().zip(wanted).any(|(a, b)| (a - b).abs() > 1.5);
        if (image.width(), image.height()) != (width, height) || far != differs(photo) {
            wrong.push(format!("{}: {} x {}, mean {got:.2?} for {wanted:.2?}", photo.path, image.width(), image.height()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn broken_files_are_errors_or_pictures_but_never_panics() {
    let Some((folder, photos)) = photos() else { return };
    let broken: Vec<&Photo> = photos.iter().filter(|photo| photo.path.starts_with("broken/")).collect();
    assert!(!broken.is_empty());
    for photo in broken {
        let result = decode(&fs::read(folder.join(&photo.path)).unwrap(), &Limits::default());
        if photo.pillow == "error" {
            assert!(result.is_err(), "{} was read, Pillow refuses it", photo.path);
        }
        if let Ok(image) = result {
            assert_eq!((Some(image.width()), Some(image.height())), (photo.width, photo.height), "{}", photo.path);
        }
    }
}

/// The kind of damage decides the variant, so that a loader can count by cause.
#[test]
fn damage_is_named() {
    let Some((folder, photos)) = photos() else { return };
    let photo = photos.iter().find(|p| p.path.starts_with("plain/") && p.path.ends_with(".jpg")).unwrap();
    let jpeg = fs::read(folder.join(&photo.path)).unwrap();
    let (width, height) = (photo.width.unwrap(), photo.height.unwrap());
    let limits = Limits::default();

    assert_eq!(decode(&[], &limits), Err(ImageError::Empty));
    assert_eq!(decode(b"This is not an image.", &limits), Err(ImageError::UnknownFormat));
    for length in [4, 100, jpeg.len() / 2, jpeg.len() - 2, jpeg.len() - 1] {
        assert_eq!(decode(&jpeg[..length], &limits), Err(ImageError::Truncated { format: "JPEG" }), "{length} bytes");
    }
    let limit = u64::from(width) * u64::from(height) - 1;
    assert_eq!(decode(&jpeg, &Limits { max_pixels: limit }), Err(ImageError::TooLarge { format: "JPEG", width, height, limit }));
    let arithmetic = edited(&jpeg, 0xc0, |frame| frame[1] = 0xc9);
    assert!(matches!(decode(&arithmetic, &limits), Err(ImageError::Unsupported { format: "JPEG", .. })));
    let empty = edited(&jpeg, 0xc0, |frame| frame[5..9].fill(0));
    assert!(matches!(decode(&empty, &limits), Err(ImageError::Corrupt { format: "JPEG", .. })));
    let tables = edited(&jpeg, 0xc4, |table| table[5..21].fill(255));
    assert!(matches!(decode(&tables, &limits), Err(ImageError::Corrupt { format: "JPEG", .. })));
}

#[test]
fn the_beginning_of_a_file_is_an_error_in_every_format() {
    let Some((folder, _)) = photos() else { return };
    let files = ["rgb.png", "rgb.webp", "animated.gif", "rgb.bmp", "rgb.tiff", "progressive.jpg"];
    for (name, format) in files.into_iter().zip(["PNG", "WebP", "GIF", "BMP", "TIFF", "JPEG"]) {
        let bytes = fs::read(folder.join("odd").join(name)).unwrap();
        // So little because the animation has its first frame early on.
        let error = decode(&bytes[..bytes.len() / 50], &Limits::default()).unwrap_err();
        // The GIF decoder reports the end as a flaw of the format.
        let reason = "Format error decoding Gif: Unexpected End of File".to_owned();
        let wanted = match format {
            "GIF" => ImageError::Corrupt { format, reason },
            _ => ImageError::Truncated { format },
        };
        assert_eq!(error, wanted);
    }
}

/// A picture of 65,535 x 65,535 must be refused on its header: the declared size is 12 GiB.
#[test]
fn a_huge_declared_size_is_refused_for_every_format() {
    let Some((folder, _)) = photos() else { return };
    let jpeg = fs::read(folder.join("broken/huge_declared_size.jpg")).unwrap();
    assert!(matches!(decode(&jpeg, &Limits::default()), Err(ImageError::TooLarge { width: 65535, height: 65535, .. })));
    // The other formats' own size fields are exercised by lowering the limit instead.
    for name in ["odd/rgb.png", "odd/rgb.webp", "odd/animated.gif", "odd/rgb.bmp", "odd/rgb.tiff"] {
        let bytes = fs::read(folder.join(name)).unwrap();
        let result = decode(&bytes, &Limits { max_pixels: 1000 });
        assert!(matches!(result, Err(ImageError::TooLarge { .. } | ImageError::Unsupported { .. })), "{name}: {result:?}");
    }
}

/// libjpeg understands the same file differently when an Adobe or JFIF marker says so.
#[test]
fn color_markers_follow_libjpegs_order() {
    let Some((folder, photos)) = photos() else { return };
    let photo = photos.iter().find(|p| p.path.starts_with("plain/") && p.path.ends_with(".jpg")).unwrap();
    let jpeg = fs::read(folder.join(&photo.path)).unwrap();
    let limits = Limits::default();
    let usual = decode(&jpeg, &limits).unwrap();

    // JFIF beside "Adobe, transform 0": still YCbCr.
    let adobe: &[u8] = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00";
    let jfif: &[u8] = b"\xff\xe0\x00\x10JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00";
    let bare = without_app_segments(&jpeg);
    let with = |segments: &[&[u8]]| [&bare[..2], &segments.concat(), &bare[2..]].concat();
    assert_eq!(decode(&with(&[jfif, adobe]), &limits).unwrap(), usual);
    // "Adobe, transform 0" alone: the three components are R, G and B as they are. Y is then the
    // first channel, which is the gray of the usual reading.
    let rgb = decode(&with(&[adobe]), &limits).unwrap();
    let (mut far, pairs) = (0, rgb.pixels().chunks_exact(3).zip(usual.pixels().chunks_exact(3)));
    for (stored, shown) in pairs {
        let gray = 0.299 * f64::from(shown[0]) + 0.587 * f64::from(shown[1]) + 0.114 * f64::from(shown[2]);
        far += usize::from((f64::from(stored[0]) - gray).abs() > 3.0);
    }
    // Colors clipped at 0 or 255 lose their gray; they are few.
    assert!(far * 20 < usual.pixels().len() / 3, "{far} pixels");
}

/// Damaged copies of every small file: no panic, and a picture only of the declared size.
#[test]
fn random_damage_never_panics() {
    let Some((folder, photos)) = photos() else { return };
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let limits = Limits { max_pixels: 1 << 20 };
    for photo in photos.iter().filter(|photo| photo.path.starts_with("odd/")) {
        let bytes = fs::read(folder.join(&photo.path)).unwrap();
        if bytes.len() > 60_000 {
            continue;
        }
        for _ in 0..40 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random(4) {
                let reach = if random(2) == 0 { damaged.len().min(600) } else { damaged.len() };
                damaged[random(reach)] = random(256) as u8;
            }
            if random(4) == 0 {
                damaged.truncate(1 + random(bytes.len()));
            }
            if let (Ok(image), Ok(info)) = (decode(&damaged, &limits), info(&damaged)) {
                assert_eq!((image.width(), image.height()), (info.width, info.height), "{}", photo.path);
            }
        }
    }
}

/// The header segments, from `0xff` on, up to the first scan.
fn segments(jpeg: &[u8]) -> Vec<(usize, usize)> {
    let (mut found, mut at) = (Vec::new(), 2);
    while jpeg[at + 1] != 0xda {
        let length = 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        found.push((at, length));
        at += length;
    }
    found
}

/// A copy in which the first segment with this marker was edited, `0xff` included.
fn edited(jpeg: &[u8], marker: u8, edit: impl Fn(&mut [u8])) -> Vec<u8> {
    let (at, length) = segments(jpeg).into_iter().find(|&(at, _)| jpeg[at + 1] == marker).unwrap();
    let mut copy = jpeg.to_vec();
    edit(&mut copy[at..at + length]);
    copy
}

fn without_app_segments(jpeg: &[u8]) -> Vec<u8> {
    let mut copy = jpeg.to_vec();
    for (at, length) in segments(jpeg).into_iter().rev().filter(|&(at, _)| jpeg[at + 1] & 0xf0 == 0xe0) {
        copy.drain(at..at + length);
    }
    copy
}
