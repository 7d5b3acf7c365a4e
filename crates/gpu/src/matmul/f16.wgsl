// Tiles of a product in half precision, for adapters that compute in it: half the traffic of workgroup memory.

enable f16;

alias Quad = vec4<f16>;

// Too large for half precision becomes infinite on every adapter: the step's loss scaling looks for that. Left to the conversion, some
// adapters would give the largest finite number.
fn quad(v: vec4f) -> Quad {
    return Quad(select(v, v * 3e38, abs(v) > vec4f(65504.0)));
}
