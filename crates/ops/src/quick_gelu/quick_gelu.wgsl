// y = x·σ(1.702·x), dx = dy·(σ + 1.702·x·σ·(1 − σ)).

fn value(x: f32) -> f32 {
    return x / (1.0 + exp(-1.702 * x));
}

fn gradient(x: f32, dy: f32) -> f32 {
    let s = 1.0 / (1.0 + exp(-1.702 * x));
    return dy * (s + 1.702 * x * s * (1.0 - s));
}
