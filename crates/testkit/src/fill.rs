//! Weights and inputs as a function of their name.
//!
//! The seed is the FNV-1a hash of the name; element `i` is the `i`-th output of SplitMix64 from that
//! seed, mapped to `v` in [-1, 1) and scaled by [`FillKind`]. Every product and sum is one rounding to
//! f32, so all implementations agree bit for bit.
//!
//! Sources: Fowler, Noll and Vo, FNV-1a 64 bit; Steele, Lea and Flood 2014, "Fast splittable
//! pseudorandom number generators".

/// Rule by which `v`, uniform in [-1, 1), becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillKind {
    /// 0: counters.
    Zero,
    /// 1: magnitudes of weight normalization.
    One,
    /// 0.1·v: biases, running means.
    Bias,
    /// 1 + 0.5·|v|: running variances.
    Var,
    /// 0.5·v: position tables and class tokens.
    Table,
    /// 1 + 0.1·v: gains of norms.
    Scale,
    /// v·√(3/fan_in), `fan_in` the product of all dimensions but the first: variance 1/fan_in.
    Weight,
    /// v·√3, variance 1: images, features, cotangents. Never a parameter.
    Input,
    /// 0.5·v: logits fed straight into a loss. Never a parameter.
    Half,
    /// v. Never a parameter.
    Raw,
}

/// The kind of the parameter or buffer `name`, or `None` if no rule covers it (data never is).
pub fn kind_of(name: &str, shape: &[usize]) -> Option<FillKind> {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    let is_table = ["position_bias", "rel_pos_bias", "pos_embed", "cls_token"].iter().any(|part| name.contains(part));
    match leaf {
        "num_batches_tracked" => Some(FillKind::Zero),
        "running_mean" => Some(FillKind::Bias),
        "running_var" => Some(FillKind::Var),
        "weight_g" => Some(FillKind::One),
        _ if is_table => Some(FillKind::Table),
        _ if leaf.starts_with("pooled_") && leaf.ends_with("_scale") => Some(FillKind::Scale),
        _ if shape.len() >= 2 => Some(FillKind::Weight),
        "weight" if shape.len() == 1 => Some(FillKind::Scale),
        "bias" => Some(FillKind::Bias),
        _ => None,
    }
}

/// Values of a name with the given kind, row-major; the name begins with the fixture's prefix.
pub(crate) fn fill_named(name: &str, shape: &[usize], kind: FillKind) -> Vec<f32> {
    let n = shape.iter().product();
    let fan_in: usize = shape.iter().skip(1).product();
    let unit = (3.0 / fan_in as f64).sqrt() as f32;
    let root3 = 3.0f64.sqrt() as f32;
    match kind {
        FillKind::Zero => vec![0.0; n],
        FillKind::One => vec![1.0; n],
        FillKind::Bias => generate(name, n, |v| 0.1 * v),
        FillKind::Var => generate(name, n, |v| 1.0 + 0.5 * v.abs()),
        FillKind::Table | FillKind::Half => generate(name, n, |v| 0.5 * v),
        FillKind::Scale => generate(name, n, |v| 1.0 + 0.1 * v),
        FillKind::Weight => generate(name, n, |v| v * unit),
        FillKind::Input => generate(name, n, |v| v * root3),
        FillKind::Raw => generate(name, n, |v| v),
    }
}

/// The seed of `name`: FNV-1a, 64 bit, over its UTF-8 bytes.
pub fn seed(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

// Generic over the map, so that each kind gets a loop of its own without a branch in it.
fn generate(name: &str, n: usize, map: impl Fn(f32) -> f32) -> Vec<f32> {
    let seed = seed(name);
    (1..=n as u64).map(|i| map(uniform(seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15))))).collect()
}

/// SplitMix64's output function, its upper 24 bits as a number in [-1, 1): exact in f32.
fn uniform(state: u64) -> f32 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    2.0 * ((z >> 40) as f32 / 16_777_216.0) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn kind_named(kind: &str) -> FillKind {
        match kind {
            "zero" => FillKind::Zero,
            "one" => FillKind::One,
            "bias" => FillKind::Bias,
            "var" => FillKind::Var,
            "table" => FillKind::Table,
            "scale" => FillKind::Scale,
            "weight" => FillKind::Weight,
            "input" => FillKind::Input,
            "half" => FillKind::Half,
            "raw" => FillKind::Raw,
            other => panic!("unknown kind {other}"),
        }
    }

    #[test]
    fn agrees_with_the_stored_vectors_bit_for_bit() {
        let Some(folder) = crate::golden_or_skip("agrees_with_the_stored_vectors_bit_for_bit") else {
            return;
        };
        let text = std::fs::read(folder.join("fill_vectors.json")).expect("fill_vectors.json is readable");
        let json: Value = serde_json::from_slice(&text).expect("fill_vectors.json is JSON");
        let vectors = json["vectors"].as_array().expect("a list of vectors");
        assert!(!vectors.is_empty());
        for vector in vectors {
            let name = vector["name"].as_str().expect("name");
            let shape: Vec<usize> = vector["shape"].as_array().expect("shape").iter().map(|d| d.as_u64().expect("size") as usize).collect();
            let kind = kind_named(vector["kind"].as_str().expect("kind"));
            assert_eq!(format!("{:#018x}", seed(name)), vector["seed_hex"], "{name}");
            if !matches!(kind, FillKind::Input | FillKind::Half | FillKind::Raw) {
                assert_eq!(kind_of(name, &shape), Some(kind), "{name}");
            }
            let values = fill_named(name, &shape, kind);
            let indices = vector["indices"].as_array().expect("indices");
            for (index, want) in indices.iter().zip(vector["values"].as_array().expect("values")) {
                let got = values[index.as_u64().expect("index") as usize];
                let want = want.as_f64().expect("value") as f32;
                assert_eq!(got.to_bits(), want.to_bits(), "{name}[{index}]: got {got}, want {want}");
            }
            let l2 = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            let want = vector["digest"]["l2"].as_f64().expect("l2");
            assert!((l2 - want).abs() <= 1e-12 * want, "{name}: l2 {l2}, want {want}");
        }
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let cases: &[(&str, &[usize], Option<FillKind>)] = &[
            ("bn.num_batches_tracked", &[], Some(FillKind::Zero)),
            ("bn.running_mean", &[4], Some(FillKind::Bias)),
            ("bn.running_var", &[4], Some(FillKind::Var)),
            ("head.last_layer.weight_g", &[8, 1], Some(FillKind::One)),
            ("head.last_layer.weight_v", &[8, 4], Some(FillKind::Weight)),
            ("attn.relative_position_bias_table", &[169, 2], Some(FillKind::Table)),
            ("pos_embed", &[1, 5, 4], Some(FillKind::Table)),
            ("attn.pooled_k_scale", &[2, 1], Some(FillKind::Scale)),
            ("norm.weight", &[4], Some(FillKind::Scale)),
            ("norm.bias", &[4], Some(FillKind::Bias)),
            ("gamma", &[4], None),
        ];
        for (name, shape, kind) in cases {
            assert_eq!(kind_of(name, shape), *kind, "{name}");
        }
    }
}
