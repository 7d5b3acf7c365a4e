// y = max(x, 0), dx = dy where y > 0.

fn value(x: f32) -> f32 {
    return max(x, 0.0);
}

fn gradient(y: f32, dy: f32) -> f32 {
    return select(0.0, dy, y > 0.0);
}
