//! Counter-based random numbers: a stream is a function of its key, so a resumed run draws what an uninterrupted one would have.

/// A stream keyed by seed, purpose and position.
#[derive(Clone, Debug)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// The stream of this key.
    pub fn new(seed: u64, purpose: &str, position: &[u64]) -> Stream {
        let mut state = mix(seed ^ 0x9e37_79b9_7f4a_7c15);
        for byte in purpose.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        for &p in position {
            state = mix(state.wrapping_add(0x632b_e59b_d9b4_e019) ^ p);
        }
        Stream { state }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Uniform in [0, 1), 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Two independent standard normal values (Box and Muller).
    pub fn normal_pair(&mut self) -> [f32; 2] {
        let u = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64; // in (0, 1]
        let v = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let (r, angle) = ((-2.0 * u.ln()).sqrt(), 2.0 * std::f64::consts::PI * v);
        [(r * angle.cos()) as f32, (r * angle.sin()) as f32]
    }
}

/// SplitMix64's finalizer.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_functions_of_their_key() {
        let draw = |seed, purpose, position: &[u64]| Stream::new(seed, purpose, position).uniform();
        assert_eq!(draw(1, "a", &[2, 3]), draw(1, "a", &[2, 3]));
        let all = [draw(1, "a", &[2, 3]), draw(2, "a", &[2, 3]), draw(1, "b", &[2, 3]), draw(1, "a", &[3, 2]), draw(1, "a", &[2])];
        for i in 0..all.len() {
            for j in 0..i {
                assert_ne!(all[i], all[j]);
            }
        }
    }

    #[test]
    fn moments_are_right() {
        let mut s = Stream::new(7, "test", &[]);
        let n = 20_000;
        let mean = (0..n).map(|_| s.uniform() as f64).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        let normals: Vec<f64> = (0..n / 2).flat_map(|_| s.normal_pair()).map(f64::from).collect();
        let var = normals.iter().map(|v| v * v).sum::<f64>() / n as f64;
        assert!((var - 1.0).abs() < 0.04, "{var}");
    }
}
